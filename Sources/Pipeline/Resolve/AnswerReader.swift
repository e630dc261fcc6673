import CCares
import Pipeline

/// What a query brought, from its message by c-ares' parsers.
package enum AnswerReader {
    /// The most records that are taken from one answer.
    private static let recordLimit = 1024

    /// - Parameter status: what c-ares says of the query; 0: there is a message.
    package static func v4(_ message: UnsafeBufferPointer<UInt8>, _ status: Int32 = 0) -> Answer<IPAddress> {
        answer(status, message, readV4)
    }
    package static func v6(_ message: UnsafeBufferPointer<UInt8>, _ status: Int32 = 0) -> Answer<IPAddress> {
        answer(status, message, readV6)
    }
    package static func services(_ message: UnsafeBufferPointer<UInt8>, _ status: Int32 = 0) -> Answer<ServiceRecord> {
        answer(status, message, readServices)
    }

    static func text(_ status: Int32) -> String { String(cString: ares_strerror(status)) }

    private static func answer<Record>(
        _ status: Int32, _ message: UnsafeBufferPointer<UInt8>,
        _ parse: (UnsafeBufferPointer<UInt8>) -> (status: Int32, records: [Record], ttl: UInt32)
    ) -> Answer<Record> {
        var status = status
        if status == ARES_SUCCESS {
            let parsed = parse(message)
            if parsed.status == ARES_SUCCESS, !parsed.records.isEmpty {
                return .found(parsed.records, ttl: parsed.ttl)
            }
            status = parsed.status == ARES_SUCCESS ? ARES_ENODATA : parsed.status
        }
        switch status {
        case ARES_ENODATA: return .none(isGone: false)
        case ARES_ENOTFOUND: return .none(isGone: true)
        default: return .failed(text(status))
        }
    }

    private static func readV4(
        _ message: UnsafeBufferPointer<UInt8>
    ) -> (status: Int32, records: [IPAddress], ttl: UInt32) {
        var found = [ares_addrttl](repeating: ares_addrttl(), count: recordLimit)
        var count = Int32(recordLimit)
        let status = ares_parse_a_reply(message.baseAddress, Int32(clamping: message.count), nil, &found, &count)
        let list = found.prefix(max(0, Int(count)))
        return (
            status, list.map { IPAddress(v4: UInt32(bigEndian: $0.ipaddr.s_addr)) },
            UInt32(clamping: list.map(\.ttl).min() ?? 0)
        )
    }

    private static func readV6(
        _ message: UnsafeBufferPointer<UInt8>
    ) -> (status: Int32, records: [IPAddress], ttl: UInt32) {
        var found = [ares_addr6ttl](repeating: ares_addr6ttl(), count: recordLimit)
        var count = Int32(recordLimit)
        let status = ares_parse_aaaa_reply(message.baseAddress, Int32(clamping: message.count), nil, &found, &count)
        let list = found.prefix(max(0, Int(count)))
        return (status, list.map { address($0.ip6addr) }, UInt32(clamping: list.map(\.ttl).min() ?? 0))
    }

    private static func address(_ raw: ares_in6_addr) -> IPAddress {
        withUnsafeBytes(of: raw) { bytes in
            IPAddress(
                high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
                low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }

    private static func readServices(
        _ message: UnsafeBufferPointer<UInt8>
    ) -> (status: Int32, records: [ServiceRecord], ttl: UInt32) {
        var first: UnsafeMutablePointer<ares_srv_reply>?
        let status = ares_parse_srv_reply(message.baseAddress, Int32(clamping: message.count), &first)
        defer { if let first { ares_free_data(first) } }
        var records: [ServiceRecord] = []
        var next = first
        while let record = next, records.count < recordLimit {
            // "." says that there is no such service (RFC 2782). What is no name of a host can't be asked for.
            if let host = record.pointee.host, let target = BackendName.canonical(String(cString: host)) {
                records.append(
                    ServiceRecord(
                        target: target, port: record.pointee.port, priority: record.pointee.priority,
                        weight: record.pointee.weight))
            }
            next = record.pointee.next
        }
        return (status, records, AnswerTTL.least(message) ?? 0)
    }
}
