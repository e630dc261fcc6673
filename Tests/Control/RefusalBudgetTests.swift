import FilterCatalog
import Pipeline
import Testing

@testable import PipelineNode

@Suite("R27: how many lines refused connections have")
struct RefusalBudgetTests {
    private func record(
        _ reason: RuntimeReason, from client: String = "192.0.2.1:1000", isRelayed: Bool = false
    ) throws -> ConnectionRecord {
        var record = ConnectionRecord()
        record.reason = reason.code
        record.client = try #require(Endpoint(client))
        record.isRelayed = isRelayed
        return record
    }

    @Test("each reason has its lines a second, the rest is one line with the count, and relayed ones are all told")
    func budget() throws {
        var budget = RefusalBudget()
        let start = Instant(nanoseconds: 1_000_000_000)
        var written = 0
        for _ in 0..<500 { if budget.admits(try record(.clientLeftEarly), start) { written += 1 } }
        #expect(written == 100)
        let (other, relayed) = (try record(.tooManyConnections), try record(.clientLeftEarly, isRelayed: true))
        let admitted = [budget.admits(other, start)] + (0..<1000).map { _ in budget.admits(relayed, start) }
        #expect(!admitted.contains(false))
        let early = budget.due(start + .milliseconds(999))
        #expect(early.isEmpty)
        #expect(budget.nextDue == start + .seconds(1))
        let said = budget.due(start + .seconds(1))
        #expect(said.map(\.count) == [400])
        #expect(said.first?.reason == RuntimeReason.clientLeftEarly.code)
        #expect(budget.summed == 400)
        #expect(budget.nextDue == nil)
        let later = budget.due(start + .seconds(2))
        let isNew = budget.admits(try record(.clientLeftEarly), start + .seconds(2))
        #expect(later.isEmpty && isNew, "a new second, new lines")
    }

    @Test("lines and counts together are all of them, whenever they come")
    func exact() throws {
        var budget = RefusalBudget()
        budget.perSecond = 7
        var (written, summed) = (0, UInt64(0))
        var now = Instant(nanoseconds: 0)
        let refused = try record(.noBackend)
        for number in 0..<5000 {
            now = now + .milliseconds(UInt32(number % 13))
            if budget.admits(refused, now) { written += 1 }
            if number % 5 == 0 { summed += budget.due(now).reduce(0) { $0 + $1.count } }
        }
        summed += budget.rest().reduce(0) { $0 + $1.count }
        #expect(UInt64(written) + summed == 5000)
        #expect(written <= 7 * (Int(now.nanoseconds / 1_000_000_000) + 1))
    }

    @Test("the networks that most come from are found among many others: /64 and /32")
    func networks() throws {
        var networks = FrequentNetworks()
        let greedy = try #require(IPAddress("2001:db8:1:2::7"))
        let second = try #require(IPAddress("198.51.100.9"))
        for number in UInt64(0)..<20_000 {
            networks.add(IPAddress(high: 0x2001_0DB8_FFFF_0000 + number, low: number))
            networks.add(IPAddress(high: greedy.high, low: number))
            if number % 2 == 0 { networks.add(second) }
        }
        let top = networks.top(2)
        #expect(top.map(\.network) == [IPAddress(high: greedy.high, low: 0), second])
        for (one, real) in zip(top, [UInt64(20_000), 10_000]) {
            #expect(one.count <= real && one.count >= real - 50_000 / UInt64(FrequentNetworks.room))
        }
    }

    @Test("the line that stands for them is JSON with the reason's fields")
    func line() throws {
        var log = ConnectionLog(ReasonTable(catalog: catalog))
        let network = try #require(IPAddress("2001:db8::"))
        log.append(
            RefusalBudget.Summary(
                reason: RuntimeReason.tooManyConnections.code, count: 400,
                networks: [(network, 300), (try #require(IPAddress("192.0.2.7")), 90)]), time: 0)
        #expect(
            String(decoding: log.bytes, as: UTF8.self) == """
                {"time":"1970-01-01T00:00:00.000Z","event":"refusals","reason":"limits.connections node",\
                "stage":"limits","side":"node","count":400,"networks":[{"network":"2001:db8::/64","at_least":300},\
                {"network":"192.0.2.7","at_least":90}]}

                """)
    }
}
