import FilterCatalog
import Pipeline
import PipelineNode
import PipelineRouting

/// What must hold of the connection log's lines, whatever names, addresses and numbers a connection has: one line, JSON, and in
/// it what the record says. For the tests beside it and for Fuzz/run.
///
/// An input is 24 bytes of numbers, and texts that 0xFF parts.
enum LogLineProperties {
    private static let names: [StaticString] = [
        "time", "event", "reason", "route", "org", "app", "env", "instance", "server_name", "attempts",
        "bytes_to_backend", "bytes_to_client", "worker", "id",
    ]

    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        guard bytes.count >= 24 else { return nil }
        let record = record(Array(bytes))
        var log = ConnectionLog(ReasonTable(catalog: catalog))
        log.append(record)
        let line = log.bytes
        guard line.last == 0x0A, line.dropLast().allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
            return "no line: \(line)"
        }
        if let flaw = flawAsMessage(line) { return flaw }
        do throws(JSONError) {
            return wrong(try FlatJSON.read(Array(line.dropLast()), names: names), record)
        } catch {
            return "\(String(decoding: line, as: UTF8.self)): \(error)"
        }
    }

    /// As a syslog message: one line, with the whole of it behind a header of ours.
    private static func flawAsMessage(_ line: [UInt8]) -> String? {
        for settings in [SyslogSettings(.unix("/dev/log")), SyslogSettings(.udp(Endpoint(.unspecified, 514)))] {
            var frame = SyslogFrame(settings, host: "h", process: 1)
            let message = frame.message(line, 0)
            let header = message.dropLast(line.count - 1)
            guard message.suffix(line.count - 1).elementsEqual(line.dropLast()), header.first == UInt8(ascii: "<"),
                header.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }), header.count < 80
            else { return "no message: \(message)" }
        }
        return nil
    }

    private static func record(_ bytes: [UInt8]) -> ConnectionRecord {
        let number = { (place: Int) in bytes[place..<place + 8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
        let texts = bytes[24...].split(separator: 0xFF, omittingEmptySubsequences: false).map { Array($0) }
        let text = { (index: Int) in texts.indices.contains(index) ? texts[index] : [] }
        var record = ConnectionRecord()
        record.serial = number(0)
        record.bytesToUpstream = number(8)
        record.bytesToClient = number(16)
        record.endedAt = number(3)
        record.duration = TimeSpan(nanoseconds: number(5))
        record.timeToConnect = TimeSpan(nanoseconds: number(11))
        record.worker = UInt16(truncatingIfNeeded: number(2))
        record.attempts = bytes[9]
        record.reason = ReasonCode(rawValue: UInt16(bytes[12]) << 1 | UInt16(bytes[13] & 1))
        record.shadowed = bytes[14] & 1 == 0 ? nil : ReasonCode(rawValue: UInt16(bytes[15]))
        record.peer = Endpoint(IPAddress(high: number(4), low: number(12)), record.worker)
        record.client = bytes[14] & 2 == 0 ? record.peer : Endpoint(IPAddress(v4: UInt32(number(6) >> 32)), 1)
        record.destination = Endpoint(IPAddress(high: number(1), low: 0xFFFF_0000_0000 | number(10) >> 32), 443)
        record.backend = bytes[14] & 4 == 0 ? nil : record.destination
        text(0).withUnsafeBufferPointer { record.route.set($0) }
        text(1).withUnsafeBufferPointer { record.org.set($0) }
        text(2).withUnsafeBufferPointer { record.app.set($0) }
        text(3).withUnsafeBufferPointer { record.env.set($0) }
        text(4).withUnsafeBufferPointer { record.instance.set($0) }
        text(5).withUnsafeBufferPointer { record.serverName.set($0) }
        return record
    }

    private static func wrong(_ line: FlatJSON, _ record: ConnectionRecord) -> String? {
        let texts: [(String, String?)] = [
            ("route", shown(record.route)), ("org", shown(record.org)), ("app", shown(record.app)),
            ("env", shown(record.env)), ("instance", shown(record.instance)),
            ("server_name", shown(record.serverName)), ("event", "connection"),
        ]
        for (name, wanted) in texts where line.string(name) != wanted {
            return "\(name) is \(line.string(name) ?? "not there"), not \(wanted ?? "left out")"
        }
        let numbers: [(String, UInt64)] = [
            ("id", record.serial), ("bytes_to_backend", record.bytesToUpstream), ("worker", UInt64(record.worker)),
            ("bytes_to_client", record.bytesToClient), ("attempts", UInt64(record.attempts)),
        ]
        for (name, wanted) in numbers where line[name] != .number(wanted) { return "\(name) is not \(wanted)" }
        return line.string("time") == nil || line.string("reason") == nil ? "no time or no reason" : nil
    }

    private static func shown<let capacity: Int>(_ text: ShortText<capacity>) -> String? {
        guard text.count > 0 else { return nil }
        return text.withBytes { String(decoding: $0, as: UTF8.self) } + (text.isCut ? "…" : "")
    }
}
