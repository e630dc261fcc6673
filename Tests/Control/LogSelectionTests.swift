import FilterCatalog
import Pipeline
import Testing

@testable import PipelineNode

@Suite("R27: which connections have a line")
struct LogSelectionTests {
    private static let reasons = ReasonTable(catalog: catalog)

    private func selection(_ change: (inout LogSettings) -> Void = { _ in }) -> LogSelection {
        var settings = LogSettings()
        change(&settings)
        return LogSelection(settings, Self.reasons)
    }

    private func record(_ reason: RuntimeReason, serial: UInt64 = 1, isRelayed: Bool = false) -> ConnectionRecord {
        record(reason.code, serial: serial, isRelayed: isRelayed)
    }
    private func record(_ code: ReasonCode, serial: UInt64 = 1, isRelayed: Bool = false) -> ConnectionRecord {
        var record = ConnectionRecord()
        (record.reason, record.serial, record.isRelayed) = (code, serial, isRelayed)
        return record
    }

    @Test("without a word about it, every one has a line, also of a reason that nobody knows")
    func all() {
        let selection = selection()
        for code in 0...UInt16(Self.reasons.count) {
            #expect(selection.verdict(record(ReasonCode(rawValue: code))) == .line(rate: 1))
        }
        #expect(selection.rateOfRefusals == 1)
    }

    @Test("`only` and `except` take names and families, and `except` wins; both sides of a reason are one name")
    func patterns() {
        let only = selection { $0.only = ["limits.*", "relay.closed"] }
        #expect(only.verdict(record(.tooManyConnections)) == .line(rate: 1))
        #expect(only.verdict(record(.closedByUpstream)) == .line(rate: 1))
        #expect(only.verdict(record(.closedByClient)) == .line(rate: 1))
        #expect(only.verdict(record(.resetByClient)) == .excluded)
        #expect(only.verdict(record(ReasonCode(rawValue: .max))) == .excluded)
        let except = selection { ($0.only, $0.except) = (["limits.*"], ["limits.memory"]) }
        #expect(except.verdict(record(.memoryShort)) == .excluded)
        #expect(except.verdict(record(.unrouted)) == .line(rate: 1))
        let rest = selection { $0.except = ["relay.*"] }
        #expect(rest.verdict(record(.resetByClient)) == .excluded && rest.verdict(record(.noPort)) == .line(rate: 1))
    }

    @Test("a family is a stage, not the beginning of a name")
    func families() {
        #expect(ReasonPattern.matches("sni.*", "sni.timeout") && !ReasonPattern.matches("sni.*", "snippet.timeout"))
        #expect(!ReasonPattern.matches("sni.time", "sni.timeout") && !ReasonPattern.matches(".*", "sni.timeout"))
        let words = Self.reasons.patterns
        #expect(words.contains("limits.*") && words.contains("sni.timeout") && Set(words).count == words.count)
    }

    @Test("one of N, by the connection: the same whenever it is asked, and about as many as it says")
    func share() {
        let selection = selection { $0.sample.every = 10 }
        let verdicts = (0..<100_000).map { selection.verdict(record(.closedByClient, serial: $0, isRelayed: true)) }
        let lines = verdicts.count { $0 == .line(rate: 10) }
        #expect(lines + verdicts.count { $0 == .sampledOut } == 100_000)
        // Six standard deviations.
        #expect(abs(lines - 10_000) < 570)
        for serial in stride(from: 0, to: 100_000, by: 997) {
            let again = selection.verdict(record(.closedByClient, serial: UInt64(serial), isRelayed: true))
            #expect(again == verdicts[serial])
        }
    }

    @Test(
        "what is sampled: what ended in good order; all that was relayed; refusals, too",
        arguments: [
            (LogSample.Population.closed, [true, false, false]), (.relayed, [true, true, false]),
            (.all, [true, true, true]),
        ])
    func populations(_ population: LogSample.Population, isSampled: [Bool]) {
        let selection = selection { ($0.sample.every, $0.sample.population) = (1000, population) }
        let cases: [(RuntimeReason, Bool)] = [(.closedByUpstream, true), (.resetByClient, true), (.noPort, false)]
        for ((reason, isRelayed), isSampled) in zip(cases, isSampled) {
            let verdicts = Set(
                (UInt64(0)..<20_000).map { serial -> String in
                    switch selection.verdict(record(reason, serial: serial, isRelayed: isRelayed)) {
                    case .line(let rate): "\(rate)"
                    case .sampledOut: "out"
                    case .excluded: "excluded"
                    }
                })
            #expect(verdicts == (isSampled ? ["1000", "out"] : ["1"]), "\(reason) \(population)")
        }
        #expect(selection.rateOfRefusals == (population == .all ? 1000 : 1))
    }

    @Test("a line says what it stands for, and so does a count of refusals")
    func rates() {
        var log = ConnectionLog(Self.reasons)
        log.append(record(.closedByClient), sampleRate: 1)
        #expect(!String(decoding: log.bytes, as: UTF8.self).contains("sample_rate"))
        log.removeAll()
        log.append(record(.closedByClient), sampleRate: 100)
        #expect(String(decoding: log.bytes, as: UTF8.self).contains("\"sample_rate\":100,"))
        log.removeAll()
        let summary = RefusalBudget.Summary(reason: RuntimeReason.noPort.code, count: 7, networks: [])
        log.append(summary, time: 0, sampleRate: 5)
        #expect(String(decoding: log.bytes, as: UTF8.self).contains("\"count\":7,\"sample_rate\":5,"))
    }
}
