import Pipeline
import PipelineRouting
import PipelineText
import PipelineWire

/// Parser results for `pipelined decode`: one JSON object a line, or one line of text. Pure, and never fails: malformed
/// input is an answer too.
package enum Decode {
    package enum Subject: String, CaseIterable, Sendable {
        case hello, proxy, hostname
    }

    /// - Parameters:
    ///   - bytes: a stream's first bytes, or one hostname.
    ///   - limit: the most bytes that a hello's records may take.
    /// - Returns: without a line break.
    package static func json(_ subject: Subject, _ bytes: [UInt8], limit: Int) -> [UInt8] {
        bytes.withUnsafeBufferPointer { buffer in
            switch subject {
            case .hello: DecodedHello(buffer, limit: limit).json
            case .proxy: DecodedProxy(buffer).json
            case .hostname: DecodedHostname(buffer).json
            }
        }
    }

    /// The same for people.
    package static func text(_ subject: Subject, _ bytes: [UInt8], limit: Int) -> String {
        bytes.withUnsafeBufferPointer { buffer in
            switch subject {
            case .hello: DecodedHello(buffer, limit: limit).text
            case .proxy: DecodedProxy(buffer).text
            case .hostname: DecodedHostname(buffer).text
            }
        }
    }

    /// The inputs in a text of one a line. A line break ends a line, so a file that ends in one has no empty input at
    /// its end; an empty line is an empty input.
    package static func lines(_ text: [UInt8]) -> [ArraySlice<UInt8>] {
        var lines = text.split(separator: 0x0A, omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true { lines.removeLast() }
        return lines
    }

    package static func hex(of bytes: [UInt8]) -> String {
        String(decoding: bytes.flatMap { [Digits.hex($0 >> 4), Digits.hex($0 & 15)] }, as: UTF8.self)
    }

    /// Bytes from hex digits of either case; spaces, tabs and a carriage return don't count. Nil if it is anything else.
    package static func hex(_ line: ArraySlice<UInt8>) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(line.count / 2)
        var high: UInt8?
        for byte in line {
            if byte == 0x20 || byte == 0x09 || byte == 0x0D { continue }
            guard let digit = Digits.value(ofHex: byte) else { return nil }
            if let first = high {
                bytes.append(first << 4 | digit)
                high = nil
            } else {
                high = digit
            }
        }
        return high == nil ? bytes : nil
    }

    /// Text with what a terminal might act upon escaped, as in JSON without the quotes.
    static func shown(_ bytes: some Sequence<UInt8>) -> String {
        var line = JSONLine()
        line.latin1(bytes)
        return String(line.string.dropFirst().dropLast())
    }
}

/// `{"outcome":…,"server_name":…,"alpn":[…],"ech":…,"bytes":n}`. `bytes` is what the hello takes of the input, 0 if
/// there is no whole one; a server name stands as on the wire, one character a byte.
private struct DecodedHello {
    var outcome: String
    var serverName: [UInt8]?
    var alpn: [[UInt8]] = []
    var hasECH = false
    var count = 0
    var detail = ""

    init(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int) {
        switch ClientHello.parse(bytes, limit: limit) {
        case .ok(let hello):
            serverName = hello.serverNameBytes(in: bytes)
            outcome = serverName == nil ? "no_sni" : "ok"
            alpn = hello.alpnProtocols(in: bytes)
            hasECH = hello.hasECH
            count = hello.totalBytes
        case .incomplete(let needs):
            outcome = "incomplete"
            detail = "\(bytes.count) bytes so far, \(needs) needed"
        case .notTLS: outcome = "not_tls"
        case .tooLarge:
            outcome = "too_large"
            detail = "more than \(limit) bytes"
        case .malformed(let flaw):
            outcome = "malformed"
            detail = "the ClientHello \(flaw.text)"
        }
    }

    var json: [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("outcome", outcome)
        line.key("server_name")
        if let serverName { line.latin1(serverName) } else { line.null() }
        line.list("alpn", alpn) { $0.latin1($1) }
        line.field("ech", hasECH)
        line.field("bytes", count)
        line.close()
        return line.bytes
    }

    var text: String {
        guard outcome == "ok" || outcome == "no_sni" else { return detail.isEmpty ? outcome : "\(outcome): \(detail)" }
        var text = serverName.map { "ok: \(Decode.shown($0))" } ?? "no_sni"
        if !alpn.isEmpty { text += ", alpn \(alpn.map(Decode.shown).joined(separator: " "))" }
        if hasECH { text += ", ech extension" }
        return text + ", \(count) bytes"
    }
}

/// `{"outcome":…,"version":…,"command":…,"family":…,"transport":…,"source":…,"destination":…,"tlvs":[…],"bytes":n}`.
/// A missing field is null; `bytes` is the header's length, 0 if it is not complete.
private struct DecodedProxy {
    private var outcome: String
    private var header: ProxyHeader?
    private var tlvs: [(type: UInt8, value: [UInt8])] = []
    private var detail = ""

    init(_ bytes: UnsafeBufferPointer<UInt8>) {
        switch ProxyHeader.parse(bytes) {
        case .ok(let header):
            outcome = "ok"
            self.header = header
            for tlv in header.tlvs(in: bytes) { tlvs.append((tlv.type, Array(tlv.value))) }
        case .incomplete(let needs):
            outcome = "incomplete"
            detail = "\(bytes.count) bytes so far, \(needs) needed"
        case .notProxy: outcome = "not_proxy"
        case .malformed(let flaw):
            outcome = "malformed"
            detail = "the PROXY header \(flaw.text)"
        }
    }

    var json: [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("outcome", outcome)
        if let version = header?.version { line.field("version", UInt64(version)) } else { line.nullField("version") }
        line.field("command", header?.command.rawValue)
        line.field("family", header?.family.rawValue)
        line.field("transport", header?.transport.rawValue)
        line.field("source", header?.source?.description)
        line.field("destination", header?.destination?.description)
        line.list("tlvs", tlvs) { line, tlv in
            line.open()
            line.field("type", UInt64(tlv.type))
            line.field("value", Decode.hex(of: tlv.value))
            line.close()
        }
        line.field("bytes", header?.length ?? 0)
        line.close()
        return line.bytes
    }

    var text: String {
        guard let header else { return detail.isEmpty ? outcome : "\(outcome): \(detail)" }
        var text = "ok: v\(header.version) \(header.command.rawValue) \(header.family.rawValue) "
        text += header.transport.rawValue
        if let source = header.source, let destination = header.destination { text += " \(source) to \(destination)" }
        for tlv in tlvs { text += ", tlv \(tlv.type) \(Decode.hex(of: tlv.value))" }
        return text + ", \(header.length) bytes"
    }
}

/// `{"config":…,"wire":…}`: the canonical name when the bytes stand in a config or a state file, and when they come as
/// SNI; null where they are no hostname (R3).
private struct DecodedHostname {
    private var config: String?
    private var wire: String?
    private var detail = ""

    init(_ bytes: UnsafeBufferPointer<UInt8>) {
        do throws(HostnameError) {
            let pattern = try HostPattern(bytes)
            // A suffix is a wildcard of routes, and never was a hostname here.
            if pattern.mark == "." { detail = "begins with a dot; as a route's it covers the name and all below it" }
            config = pattern.mark == "." ? nil : pattern.text
        } catch {
            detail = "\(error.problem); \(error.remedy)"
        }
        var name = ServerName()
        if name.set(wire: bytes) { wire = name.string }
    }

    var json: [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("config", config)
        line.field("wire", wire)
        line.close()
        return line.bytes
    }

    var text: String {
        "config: \(config ?? "not a hostname: it \(detail)"); wire: \(wire ?? "not a hostname")"
    }
}
