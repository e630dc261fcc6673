import Pipeline
import PipelineText

/// Log lines about names, rate-limited (R27). One thread.
struct NameLog {
    private var log: BudgetedLog

    init(wallClock: @escaping @Sendable () -> UInt64, write: @escaping @Sendable ([UInt8]) -> Void) {
        log = BudgetedLog(wallClock: wallClock, write: write)
    }

    mutating func say(_ event: NameRecord.Event, _ record: NameRecord, _ now: Instant) {
        log.say(NameLog.name(event), NameLog.message(event, record), now) { line in
            line.field("name", record.name.host)
            line.field("records", record.name.kind == .service ? "SRV" : "A, AAAA")
            line.list("addresses", record.addresses) { $0.string($1.text) }
            if case .changed(let before) = event {
                line.list("before", before) { $0.string($1.text) }
                if record.refused > 0 { line.field("refused", record.refused) }
                if record.omitted > 0 { line.field("omitted", record.omitted) }
            }
            if let problem = record.problem { line.field("error", problem) }
        }
    }

    private static func name(_ event: NameRecord.Event) -> String {
        switch event {
        case .changed: "name_changed"
        case .held: "name_held"
        case .missing: "name_missing"
        case .failing: "name_failing"
        case .answered: "name_answered"
        }
    }

    private static func message(_ event: NameRecord.Event, _ record: NameRecord) -> String {
        let name = record.name.host
        switch event {
        case .changed where record.addresses.isEmpty:
            return "\(name) has no addresses: routes have no backends from it until it has some"
        case .changed(let before): return "\(name) leads to \(before.isEmpty ? "" : "other ")addresses"
        case .held(let why): return "\(name): \(why): its last addresses are kept for `hold`"
        case .missing(let why): return "\(name): \(why): routes have no backends from it"
        case .failing(let why) where record.addresses.isEmpty:
            return "\(name) can't be looked up: \(why); routes have no backends from it; check the name servers"
        case .failing(let why):
            return "\(name) can't be looked up: \(why); its last addresses are kept; check the name servers"
        case .answered: return "\(name) is answered again"
        }
    }
}
