import Pipeline
import Testing

@Suite("Which backends of a route a new connection may get")
struct BackendGroupTests {
    private func usable(_ backends: [(weight: UInt16, isUp: Bool)]) -> Int {
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
        let group = BackendGroup(
            backends: FrozenArray(
                backends.enumerated().map { index, backend in
                    Backend(address: address, instance: .empty, cell: cells + index, weight: backend.weight)
                }))
        defer { group.deallocate() }
        return group.usable(at: Instant(nanoseconds: 1))
    }

    @Test("one of weight 0 is no last resort, unless all are of weight 0; one that is down never counts")
    func weights() {
        #expect(usable([(1, false), (1, false), (0, true)]) == 0)
        #expect(usable([(1, true), (1, false), (0, true)]) == 1)
        #expect(usable([(0, true), (0, true), (0, false)]) == 2)
        #expect(usable([]) == 0)
    }
}
