import Pipeline
import Testing

@Suite("R18: what clients' connections prove of a backend and our header")
struct HeaderEvidenceTests {
    private final class Bench {
        let cell = UnsafeMutablePointer<BackendCell>.allocate(capacity: 1)
        init() { cell.initialize(to: BackendCell(Endpoint(.unspecified, 0))) }
        deinit {
            cell.deinitialize(count: 1)
            cell.deallocate()
        }
        var verdict: BackendCell.HeaderVerdict? { .init(rawValue: cell.pointee.proxy.load(ordering: .relaxed)) }
        func doubt(_ client: IPAddress) -> Bool { cell.pointee.noteHeaderDoubt(of: client) }
    }

    private func client(_ network: UInt64, _ host: UInt64 = 1) -> IPAddress {
        IPAddress(high: 0x2001_0DB8_0000_0000 | network, low: host)
    }

    @Test("three networks in a row reject; one network, however many of its clients, does not")
    func threeNetworks() {
        let bench = Bench()
        #expect(bench.verdict == .unknown)
        for host in 0..<1000 as Range<UInt64> {
            let isRejected = bench.doubt(client(1, host))
            #expect(!isRejected)
        }
        let second = bench.doubt(client(2))
        #expect(!second && bench.verdict == .unknown)
        let third = bench.doubt(client(3))
        #expect(third && bench.verdict == .rejected)
        let again = bench.doubt(client(1))
        #expect(again)
    }

    @Test("IPv4 clients are networks of their own, one each")
    func addresses() {
        let bench = Bench()
        for last in 1...2 as ClosedRange<UInt32> { _ = bench.doubt(IPAddress(v4: 0xC000_0200 | last)) }
        #expect(bench.verdict == .unknown)
        _ = bench.doubt(IPAddress(v4: 0xC000_0203))
        #expect(bench.verdict == .rejected)
    }

    @Test("one that was taken in between begins the count anew, and takes a rejection back")
    func takenMeanwhile() {
        let bench = Bench()
        for round in 0..<3 as Range<UInt64> {
            _ = bench.doubt(client(10 * round))
            _ = bench.doubt(client(10 * round + 1))
            bench.cell.pointee.noteHeaderTaken()
            #expect(bench.verdict == .accepted)
        }
        for network in 0..<3 as Range<UInt64> { _ = bench.doubt(client(network)) }
        #expect(bench.verdict == .rejected)
        bench.cell.pointee.noteHeaderTaken()
        #expect(bench.verdict == .accepted && bench.cell.pointee.headerDoubts.load(ordering: .relaxed) == 0)
    }
}
