import CLinux
import Pipeline
import PipelineText

/// One JSON object a line for every ended connection (R28). Pure: the same record always gives the same bytes.
///
/// Fields without a value are left out: no `route` without a route, no `backend` if none was tried. Texts too long for
/// the record end in `…`.
package struct ConnectionLog {
    /// By reason code: `"reason":"sni.timeout client","stage":"sni","side":"client"`, ready to copy.
    private let reasons: [[UInt8]]
    private let shadows: [String]
    private let addresses: @Sendable (_ instance: UInt32) -> [IPAddress]
    private var line = JSONLine()

    /// - Parameter addresses: all addresses of an instance, for the lines of refused connections.
    package init(_ table: ReasonTable, addresses: @escaping @Sendable (_ instance: UInt32) -> [IPAddress] = { _ in [] })
    {
        self.addresses = addresses
        // One extra entry for unknown codes.
        let codes = (0...table.count).map { ReasonCode(rawValue: UInt16($0)) }
        shadows = codes.map(table.text)
        reasons = codes.map { code in
            var fields = JSONLine()
            let name = table.entry(code)?.name ?? "unknown"
            fields.field("reason", table.text(code))
            fields.field("stage", String(name.prefix { $0 != "." }))
            fields.field("side", (table.entry(code)?.side ?? .node).rawValue)
            return fields.bytes
        }
    }

    /// What was appended since the last ``removeAll()``.
    package var bytes: [UInt8] { line.bytes }
    package mutating func removeAll() { line.removeAll() }

    /// Appends a record's line, its line break included.
    /// - Parameter sampleRate: how many connections it stands for.
    package mutating func append(_ record: ConnectionRecord, sampleRate: UInt64 = 1) {
        line.open()
        line.key("time")
        line.timestamp(record.endedAt)
        line.field("event", "connection")
        let code = Int(record.reason.rawValue)
        line.raw(code < reasons.count ? reasons[code] : reasons[reasons.count - 1])
        appendRoute(record)
        line.field("sniff", record.sniff.name)
        appendAddresses(record)
        line.field("attempts", UInt64(record.attempts))
        line.field("bytes_to_backend", record.bytesToUpstream)
        line.field("bytes_to_client", record.bytesToClient)
        line.field("duration_ms", record.duration.milliseconds)
        if record.timeToConnect != .zero { line.field("connect_ms", record.timeToConnect.milliseconds) }
        if record.queued != .zero { line.field("queued_ms", record.queued.milliseconds) }
        if let shadowed = record.shadowed, Int(shadowed.rawValue) < shadows.count {
            line.field("shadowed", shadows[Int(shadowed.rawValue)])
        }
        if sampleRate > 1 { line.field("sample_rate", sampleRate) }
        line.field("worker", UInt64(record.worker))
        line.field("id", record.serial)
        line.field("unique_id", UniqueID(serial: record.serial))
        line.close()
        line.newline()
    }

    /// Appends the summary line of refused connections without their own line.
    mutating func append(_ summary: RefusalBudget.Summary, time: UInt64, sampleRate: UInt64 = 1) {
        line.open()
        line.key("time")
        line.timestamp(time)
        line.field("event", "refusals")
        let code = Int(summary.reason.rawValue)
        line.raw(code < reasons.count ? reasons[code] : reasons[reasons.count - 1])
        line.field("count", summary.count)
        if sampleRate > 1 { line.field("sample_rate", sampleRate) }
        line.list("networks", summary.networks) { line, one in
            line.open()
            line.field("network", one.network.isIPv4 ? "\(one.network)" : "\(one.network)/64")
            line.field("at_least", one.count)
            line.close()
        }
        line.close()
        line.newline()
    }

    private mutating func appendRoute(_ record: ConnectionRecord) {
        line.field("route", record.route)
        line.field("org", record.org)
        line.field("app", record.app)
        line.field("env", record.env)
        line.field("instance", record.instance)
        appendInstanceAddresses(record)
        line.field("server_name", record.serverName)
    }

    /// An operator may want to block a refused instance by all its addresses.
    private mutating func appendInstanceAddresses(_ record: ConnectionRecord) {
        guard !record.isRelayed, record.instanceNumber != InstanceIdentity.unknown else { return }
        let all = addresses(record.instanceNumber)
        guard !all.isEmpty else { return }
        line.list("addresses", all) { $0.string($1.description) }
    }

    /// Its number, if it is gone by now.
    private static func name(of interface: UInt32) -> String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 16) { name in
            name.initialize(repeating: 0)
            guard let start = name.baseAddress, cl_interface_name(interface, start) else { return "\(interface)" }
            return String(cString: start)
        }
    }

    private mutating func appendAddresses(_ record: ConnectionRecord) {
        line.field("client", record.client)
        if record.peer != record.client { line.field("peer", record.peer) }
        line.field("destination", record.destination)
        if record.interface != 0 { line.field("interface", ConnectionLog.name(of: record.interface)) }
        if let backend = record.backend { line.field("backend", backend) }
    }
}

extension JSONLine {
    fileprivate mutating func field(_ name: StaticString, _ value: UniqueID) {
        key(name)
        hex(count: UniqueID.length) { value.byte($0) }
    }

    fileprivate mutating func field<let capacity: Int>(_ name: StaticString, _ value: ShortText<capacity>) {
        guard value.count > 0 else { return }
        key(name)
        value.withBytes { text($0, isCut: value.isCut) }
    }

    fileprivate mutating func field(_ name: StaticString, _ value: Endpoint) {
        key(name)
        endpoint(value)
    }
}
