import FilterBackendSelect
import Pipeline
import PipelineResolve

/// What must hold of an answer of the DNS and of the name that it is about, whatever the message: the same again changes
/// nothing, the order of records neither, and addresses and times stay within their bounds. For the tests beside it and for
/// Fuzz/run.
///
/// An input is a message, as it comes by UDP or TCP.
enum NameProperties {
    private static let settings: ResolveSettings = {
        var values = ResolveSettings.Values()
        values.hold = .zero
        return ResolveSettings(values)
    }()
    private static let now = Instant(nanoseconds: 1_000_000_000)

    /// Nil, or what is wrong.
    static func violation(_ message: UnsafeBufferPointer<UInt8>) -> String? {
        let (v4, v6) = (AnswerReader.v4(message), AnswerReader.v6(message))
        let services = AnswerReader.services(message)
        if case .found(let records, _) = services, AnswerTTL.least(message) == nil {
            return "no TTL of \(records.count) records that c-ares reads"
        }
        let host = BackendName(.host, "a")
        let one = LookupResult(hosts: ["a": HostAnswer(v4: v4, v6: v6)])
        let other = LookupResult(hosts: ["a": HostAnswer(v4: reversed(v4), v6: reversed(v6))])
        if let problem = violation(host, one, other) { return problem }
        var targets: [String: HostAnswer] = [:]
        if case .found(let records, _) = services {
            for (index, record) in records.enumerated() where targets[record.target] == nil {
                let address = IPAddress(v4: 0x0A00_0000 + UInt32(index))
                targets[record.target] = HostAnswer(v4: .found([address], ttl: 1), v6: .none(isGone: false))
            }
        }
        return violation(
            BackendName(.service, "a"), LookupResult(service: services, hosts: targets),
            LookupResult(service: reversed(services), hosts: targets))
    }

    private static func violation(_ name: BackendName, _ one: LookupResult, _ other: LookupResult) -> String? {
        var record = NameRecord(name, at: now)
        _ = record.take(one, at: now, settings)
        let addresses = record.addresses
        for (result, what) in [(one, "the same answer"), (other, "another order of it")] {
            let events = record.take(result, at: now, settings)
            if record.addresses != addresses || !events.allSatisfy(isQuiet) { return "\(what) changes: \(events)" }
        }
        guard addresses.count <= BackendName.addressLimit, addresses == addresses.sorted(),
            Set(addresses).count == addresses.count, addresses.allSatisfy({ settings.allows($0.address) })
        else { return "not bounded, in order, allowed and each once: \(addresses)" }
        let pause = record.next.since(now)
        guard pause >= settings.values.minTTL, pause <= settings.values.maxTTL else { return "next after \(pause)" }
        return nil
    }

    private static func isQuiet(_ event: NameRecord.Event) -> Bool {
        if case .changed = event { false } else { true }
    }

    private static func reversed<Record>(_ answer: Answer<Record>) -> Answer<Record> {
        if case .found(let records, let ttl) = answer { .found(records.reversed(), ttl: ttl) } else { answer }
    }
}
