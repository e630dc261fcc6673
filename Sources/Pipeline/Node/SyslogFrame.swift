import CLinux
import Glibc
import Pipeline
import PipelineText

/// Makes a syslog message of a line: RFC 5424, or the older form that local daemons read (RFC 3164; to a Unix socket
/// without the host, as the C library's `syslog` writes it). Pure but for the local time zone.
package struct SyslogFrame {
    private enum Severity: Int {
        case warning = 4
        case notice, info
    }

    private let facility: Int
    private let isModern: Bool
    /// Between time and message id, or time and message.
    private let names: [UInt8]
    private var bytes: [UInt8] = []

    /// - Parameters:
    ///   - host: this machine's name.
    ///   - process: its id.
    package init(_ settings: SyslogSettings, host: String = SyslogFrame.hostName(), process: Int32 = cl_process_id()) {
        facility = settings.facility
        isModern = settings.format == .rfc5424
        let host = SyslogFrame.visible(host)
        if isModern {
            names = Array(" \(host) \(settings.tag) \(process) ".utf8)
        } else if case .unix = settings.address {
            names = Array(" \(settings.tag)[\(process)]: ".utf8)
        } else {
            names = Array(" \(host) \(settings.tag)[\(process)]: ".utf8)
        }
    }

    /// - Parameters:
    ///   - line: with its line break or without.
    ///   - now: nanoseconds since 1970.
    package mutating func message(_ line: [UInt8], _ now: UInt64) -> [UInt8] {
        let text = line.last == 0x0A ? line.dropLast() : line[...]
        let head = SyslogFrame.head(text)
        bytes.removeAll(keepingCapacity: true)
        bytes.append(UInt8(ascii: "<"))
        Digits.append(UInt64(facility * 8 + SyslogFrame.severity(head?.event ?? []).rawValue), to: &bytes)
        bytes.append(UInt8(ascii: ">"))
        if isModern {
            bytes += "1 ".utf8
            if let head { bytes += head.time } else { Timestamp.append(now, to: &bytes) }
            bytes += names
            // MSGID: at most 32 characters.
            if let head { bytes += head.event.prefix(32) } else { bytes.append(UInt8(ascii: "-")) }
            bytes += " - ".utf8
        } else {
            appendLocalTime(now)
            bytes += names
        }
        bytes += text
        return bytes
    }

    private mutating func appendLocalTime(_ now: UInt64) {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 16) { text in
            guard let start = text.baseAddress else { return }
            cl_syslog_time(Int64(clamping: now / 1_000_000_000), start)
            bytes += text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        }
    }

    // MARK: What a line says of itself

    private static let opening = Array("{\"time\":\"".utf8)
    private static let middle = Array("\",\"event\":\"".utf8)
    private static let timeLength = 24

    /// The beginning of a JSON line of ours: `{"time":"2026-11-23T08:04:05.678Z","event":"connection"`.
    private static func head(_ line: ArraySlice<UInt8>) -> (time: ArraySlice<UInt8>, event: ArraySlice<UInt8>)? {
        guard line.starts(with: opening) else { return nil }
        let time = line.dropFirst(opening.count).prefix(timeLength)
        let rest = line.dropFirst(opening.count + timeLength)
        guard time.count == timeLength, rest.starts(with: middle) else { return nil }
        let event = rest.dropFirst(middle.count).prefix { $0 != UInt8(ascii: "\"") }
        guard !event.isEmpty, event.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
        return (time, event)
    }

    /// What an operator may want to be woken for, by how its event's name ends.
    private static let troubles: [[UInt8]] = [
        "_failed", "_refused", "_down", "_degraded", "_lost", "_rejected", "_short", "_broken", "_missing", "_paused",
        "_full", "_alert", "_dropped", "_unwatched", "_contested", "_not_restored", "warning", "limited", "stopping",
    ].map { Array($0.utf8) }

    private static func severity(_ event: ArraySlice<UInt8>) -> Severity {
        if event.elementsEqual("connection".utf8) || event.elementsEqual("refusals".utf8) { return .info }
        return troubles.contains { event.count >= $0.count && event.suffix($0.count).elementsEqual($0) }
            ? .warning : .notice
    }

    // MARK: Names

    package static func hostName() -> String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { name in
            guard let start = name.baseAddress, cl_host_name(start, name.count) == 0 else { return "" }
            return String(cString: start)
        }
    }

    /// What stands between blanks: printable ASCII, and `-` for nothing (RFC 5424 §6).
    private static func visible(_ name: String) -> String {
        let text = String(decoding: name.utf8.filter { $0 > 0x20 && $0 < 0x7F }.prefix(255), as: UTF8.self)
        return text.isEmpty ? "-" : text
    }
}
