import Pipeline

/// One turn of a probe: bytes to send, none for a server that speaks first, and what the answer begins with.
public struct ProbeExchange: Sendable, Equatable {
    public var send: [UInt8]
    public var expect: [UInt8]
    public init(send: [UInt8], expect: [UInt8]) {
        self.send = send
        self.expect = expect
    }
}

/// A request to a backend, and the codes that are good.
public struct HTTPProbe: Sendable, Equatable {
    public var path = "/"
    /// Nil: the backend's address and port.
    public var host: String?
    public var expect: ClosedRange<UInt16> = 200...399
    public init(path: String = "/", host: String? = nil, expect: ClosedRange<UInt16> = 200...399) {
        self.path = path
        self.host = host
        self.expect = expect
    }
}

extension HealthSettings {
    /// What an active probe does after the connect.
    public enum Probe: Sendable, Equatable {
        /// No active probes: only connect failures of real connections count.
        case off
        /// A successful connect is enough.
        case tcp
        /// Waits for bytes that begin with these.
        case expect([UInt8])
        /// Sends a ClientHello and waits for a ServerHello; the name is sent as SNI, if there is one.
        case tls(serverName: String?)
        /// Sends a request and reads the status line.
        case http(HTTPProbe)
        /// Sends and awaits, in turns.
        case exchange([ProbeExchange])
        /// Sends a StartupMessage; any answer but "not now" is good.
        case postgresql(user: String)
        /// Waits for the greeting; with a user, logs in without a password and leaves.
        case mysql(user: String?)
        case redis
        /// Waits for the greeting, says EHLO with the name, and QUIT.
        case smtp(name: String)
        /// Reads a line of HAProxy's agent protocol.
        case agent
    }

    /// The most turns of ``Probe/exchange(_:)``.
    static let exchangeLimit = 8
    /// PostgreSQL's, unless one is given: it need not exist there.
    static let standardUser = "pipelined"
}

/// The words of `probe`, and what they mean.
enum ProbeWords {
    static let forms: [[ClauseSpec.Element]] = [
        [.choice(name: "probe", ["off", "tcp", "tls", "redis", "postgresql", "mysql", "smtp", "agent"])],
        [.choice(name: "probe", ["tls"]), .word("sni"), .value(serverName)],
        [.choice(name: "probe", ["http"]), .options(httpOptions)],
        [.choice(name: "probe", ["http"]), .value(path), .options(httpOptions)],
        [.choice(name: "probe", ["postgresql", "mysql"]), .word("user"), .value(user)],
        [.choice(name: "probe", ["smtp"]), .word("name"), .value(serverName)],
        [.choice(name: "probe", ["expect"]), .value(answer), further],
        [.choice(name: "probe", ["send"]), .value(sent), .word("expect"), .value(answer), further],
    ]

    private static let httpOptions = [
        ClauseSpec("host", [.word("host"), .value(httpHost)]),
        ClauseSpec("expect", [.word("expect"), .value(statusCodes)]),
    ]
    private static let further = ClauseSpec.Element.several(
        [.word("send"), .value(sent), .word("expect"), .value(answer)], limit: HealthSettings.exchangeLimit - 1)

    static func probe(_ clause: Clause) -> HealthSettings.Probe {
        switch clause.word() {
        case "off": return .off
        case "tls": return .tls(serverName: clause.text(1))
        case "http": return http(clause)
        case "redis": return .redis
        case "agent": return .agent
        case "postgresql": return .postgresql(user: clause.text(1) ?? HealthSettings.standardUser)
        case "mysql": return .mysql(user: clause.text(1))
        case "smtp": return .smtp(name: clause.text(1) ?? "localhost")
        case "expect":
            let parts = clause.customs(as: [UInt8].self)
            guard parts.count > 1 else { return .expect(parts.first ?? []) }
            return .exchange(exchanges([[]] + parts))
        case "send": return .exchange(exchanges(clause.customs(as: [UInt8].self)))
        default: return .tcp
        }
    }

    /// - Parameter parts: sent and awaited in turns.
    private static func exchanges(_ parts: [[UInt8]]) -> [ProbeExchange] {
        stride(from: 0, to: parts.count - 1, by: 2).map { ProbeExchange(send: parts[$0], expect: parts[$0 + 1]) }
    }

    private static func http(_ clause: Clause) -> HealthSettings.Probe {
        var probe = HTTPProbe()
        if let path = clause.text(1) { probe.path = path }
        probe.host = clause.option("host")?.text()
        if let expect = clause.option("expect")?.custom(as: ClosedRange<UInt16>.self) { probe.expect = expect }
        return .http(probe)
    }

    static func text(_ probe: HealthSettings.Probe) -> String {
        switch probe {
        case .off: return "off"
        case .tcp: return "tcp"
        case .expect(let bytes): return "expect \(quotedBytes(bytes))"
        case .tls(let name): return "tls" + (name.map { " sni \($0)" } ?? "")
        case .http(let http):
            let host = http.host.map { " host \(writtenWord($0))" } ?? ""
            return "http \(writtenWord(http.path))\(host) expect \(http.expect.lowerBound)-\(http.expect.upperBound)"
        case .exchange(let exchanges):
            return exchanges.enumerated().map { number, one in
                let isFirst = number == 0 && one.send.isEmpty
                return (isFirst ? "" : "send \(quotedBytes(one.send)) ") + "expect \(quotedBytes(one.expect))"
            }.joined(separator: " ")
        case .postgresql(let user): return "postgresql user \(writtenWord(user))"
        case .mysql(let user): return "mysql" + (user.map { " user \(writtenWord($0))" } ?? "")
        case .redis: return "redis"
        case .agent: return "agent"
        case .smtp(let name): return "smtp name \(writtenWord(name))"
        }
    }

    // MARK: Values

    private static func bytes(_ form: String, _ what: String) -> ValueKind {
        ValueKind(form, expected: what, range: "1 to 256 bytes") { text throws(ValueProblem) in
            let bytes = escapedBytes(text)
            guard (1...256).contains(bytes.count) else {
                throw ValueProblem(message: "the text is empty or too long", expected: "1 to 256 bytes")
            }
            return .custom(bytes)
        }
    }

    private static let answer = bytes("TEXT", "the text that the answer begins with")
    private static let sent = bytes("TEXT", "the text to send")

    /// RFC 9112 §3.2.1. Nothing that could end the line that it is part of.
    private static let path = ValueKind("PATH", expected: "a path like `/healthz`") { text throws(ValueProblem) in
        guard text.hasPrefix("/"), text.utf8.count <= 1024, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a path",
                expected: "a path like `/healthz`, at most 1024 bytes of ASCII",
                mayBeOther: !text.hasPrefix("/"))
        }
        return .text(text)
    }

    /// RFC 9110 §7.2: a name or an address, with or without a port.
    private static let httpHost = ValueKind("HOST", expected: "a host") { text throws(ValueProblem) in
        let isFit = text.utf8.allSatisfy { c in
            c.isASCIILetterOrDigit || "-._:[]".utf8.contains(c)
        }
        guard (1...255).contains(text.utf8.count), isFit else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a host", expected: "a name or address like `app.example.com:8080`")
        }
        return .text(text)
    }

    private static let statusCodes = ValueKind(
        "CODES", expected: "codes like `200-399` or `204`", range: "100–599"
    ) { text throws(ValueProblem) in
        let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt16($0) }
        guard parts.count <= 2, let first = parts.first ?? nil, let last = parts.last ?? nil, first <= last,
            first >= 100, last <= 599, !text.hasPrefix("+")
        else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a range of codes",
                expected: "codes like `200-399` or `204`, 100 to 599")
        }
        return .custom(first...last)
    }

    private static let user = ValueKind("NAME", expected: "a user") { text throws(ValueProblem) in
        guard (1...63).contains(text.utf8.count), text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a user", expected: "1 to 63 bytes of ASCII without spaces")
        }
        return .text(text)
    }

    /// A host name to send as SNI (RFC 6066 §3) or EHLO: no address, no wildcard. Lower case comes out.
    private static let serverName = ValueKind("NAME", expected: "a server name") { text throws(ValueProblem) in
        let problem = ValueProblem(
            message: "\(quoted(text)) is not a hostname",
            expected: "a name like `app.example.com`, as it goes over the wire")
        guard (1...253).contains(text.utf8.count), IPAddress(text) == nil else { throw problem }
        for label in text.split(separator: ".", omittingEmptySubsequences: false) {
            let isFit = label.utf8.allSatisfy { c in
                c.isASCIILetterOrDigit || c == 0x2D || c == 0x5F
            }
            guard (1...63).contains(label.utf8.count), isFit else { throw problem }
        }
        return .text(text.lowercased())
    }
}
