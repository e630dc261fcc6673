import Pipeline
import Testing

@Suite("Which backends of a route a new connection may get")
struct BackendGroupTests {
    private func usable(_ backends: [(weight: UInt16, isUp: Bool)]) -> Int {
        look(backends.map { ($0.weight, $0.isUp, 0) }).usable
    }

    /// How many are usable, and the priority in use.
    private func look(_ backends: [(weight: UInt16, isUp: Bool, priority: UInt8)]) -> (usable: Int, priority: UInt8?) {
        let cells = UnsafeMutablePointer<BackendCell>.allocate(capacity: max(1, backends.count))
        defer {
            cells.deinitialize(count: backends.count)
            cells.deallocate()
        }
        for (index, backend) in backends.enumerated() {
            (cells + index).initialize(to: BackendCell(Endpoint(.unspecified, 0)))
            let probe: BackendCell.Probe = backend.isUp ? .unknown : .down
            cells[index].probe.store(probe.rawValue, ordering: .relaxed)
        }
        let address = BackendAddress(Endpoint(.unspecified, 0))
        let turns = UnsafeMutablePointer<GroupCell>.allocate(capacity: 1)
        turns.initialize(to: GroupCell())
        defer { turns.deinitialize(count: 1).deallocate() }
        let group = BackendGroup(
            backends: FrozenArray(
                backends.enumerated().map { index, backend in
                    Backend(
                        address: address, instance: .empty, cell: cells + index, weight: backend.weight,
                        priority: backend.priority)
                }), cell: turns)
        defer { group.deallocate() }
        let now = Instant(nanoseconds: 1)
        return (group.usable(at: now), group.tierInUse(at: now).map { group.tiers[$0].priority })
    }

    @Test("one of weight 0 is no last resort, and one that is down never counts")
    func weights() {
        #expect(usable([(1, false), (1, false), (0, true)]) == 0)
        #expect(usable([(1, true), (1, false), (0, true)]) == 1)
        #expect(usable([(0, true), (0, true), (0, false)]) == 0)
        #expect(usable([]) == 0)
    }

    @Test("the priority in use is the first with a backend that is up and has a weight")
    func priorities() {
        #expect(look([(1, true, 0), (1, true, 15)]) == (2, 0))
        #expect(look([(1, false, 0), (1, true, 4), (1, true, 15)]) == (2, 4))
        #expect(look([(0, true, 0), (1, false, 4), (1, true, 15)]) == (1, 15))
        #expect(look([(1, false, 0), (0, true, 15)]) == (0, nil))
        #expect(look([]) == (0, nil))
    }
}
