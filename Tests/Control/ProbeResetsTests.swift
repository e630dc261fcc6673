import Pipeline
import Testing

@testable import FilterBackendSelect
@testable import PipelineHealth

/// Whose connections the table wants ended, when.
@Suite("health: connections to be ended")
struct ProbeResetsTests {
    private final class Cells {
        let memory = UnsafeMutablePointer<BackendCell>.allocate(capacity: 3)
        init() {
            for index in 0..<3 { (memory + index).initialize(to: BackendCell(Endpoint(.unspecified, UInt16(index)))) }
        }
        deinit { memory.deinitialize(count: 3).deallocate() }
        func cell(_ index: Int) -> UnsafePointer<BackendCell> { UnsafePointer(memory + index) }
    }

    private let cells = Cells()

    private func target(_ index: Int, proxy: Bool = false, ends: Bool = true, backups: [Int] = []) -> ProbeTarget {
        var values = HealthSettings.initial
        (values.fall, values.rise, values.interval, values.jitterPercent) = (1, 1, .seconds(1), 0)
        if ends { (values.onDown, values.onUp) = (.end, .endBackup) }
        let endpoint = Endpoint(IPAddress(v4: 0x0A00_0001), 9000 + UInt16(index))
        var target = ProbeTarget(
            key: .init(endpoint: endpoint, usesProxy: proxy), cell: cells.cell(index),
            settings: HealthSettings("h", values), instance: "i")
        target.backups = backups.map(cells.cell)
        return target
    }

    /// One probe of each target.
    private func probe(_ table: inout ProbeTable, at second: UInt64, _ result: (ProbeTarget) -> ProbeResult) {
        let now = Instant(nanoseconds: second * 1_000_000_000)
        while let next = table.begin(now) { _ = table.finish(next.identity, .init(result(next.target)), now: now) }
    }

    @Test("down: its own, once; up again: those of the backups behind it; a first good probe is no return")
    func downAndUp() {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [target(0, backups: [1, 2])]), now: Instant(nanoseconds: 0))
        probe(&table, at: 10) { _ in .good }
        #expect(!table.hasResets)
        probe(&table, at: 20) { _ in .refused }
        #expect(table.takeResets() == [WantedReset(cells.cell(0), .backendDown)])
        probe(&table, at: 30) { _ in .refused }
        #expect(!table.hasResets)
        probe(&table, at: 40) { _ in .good }
        #expect(table.takeResets() == [1, 2].map { WantedReset(cells.cell($0), .primaryBack) })
    }

    @Test("nothing unless asked for, and nothing while a probe of the other kind finds it up")
    func notAskedFor() {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [target(0, ends: false, backups: [1])]), now: Instant(nanoseconds: 0))
        probe(&table, at: 10) { _ in .refused }
        probe(&table, at: 20) { _ in .good }
        #expect(!table.hasResets)
        table.replace(by: .init(testing: [target(1), target(1, proxy: true)]), now: Instant(nanoseconds: 0))
        probe(&table, at: 30) { $0.key.usesProxy ? .good : .refused }
        #expect(!table.hasResets)
        probe(&table, at: 40) { _ in .refused }
        #expect(table.takeResets() == [WantedReset(cells.cell(1), .backendDown)])
    }

    @Test("a backend that is in no table any more is forgotten: its memory may be another's")
    func forgotten() {
        var table = ProbeTable(seed: 1)
        table.replace(by: .init(testing: [target(0), target(1)]), now: Instant(nanoseconds: 0))
        probe(&table, at: 10) { _ in .refused }
        table.replace(by: .init(testing: [target(1)]), now: Instant(nanoseconds: 11_000_000_000))
        #expect(table.takeResets() == [WantedReset(cells.cell(1), .backendDown)])
    }
}
