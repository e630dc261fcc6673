import Pipeline
import Testing

@testable import PipelineRuntime

/// What debug builds assert of a connection finds what is broken, and nothing else.
@Suite("A slot's own invariants (docs/INVARIANTS.md)")
struct SlotChecksTests {
    nonisolated(unsafe) private static let cell: UnsafePointer<BackendCell> = {
        let memory = UnsafeMutablePointer<BackendCell>.allocate(capacity: 1)
        memory.initialize(to: BackendCell(Endpoint(.unspecified, 0)))
        return UnsafePointer(memory)
    }()

    private static func slot(_ phase: Phase) -> Slot {
        var slot = Slot()
        for next in [Phase.peeking, .connecting, .relaying, phase] where next.rawValue <= phase.rawValue {
            if slot.phase != next { slot.enter(next) }
        }
        slot.client = Descriptor(5)
        slot.up.state = [.writable]
        slot.down.state = [.writable]
        if phase == .peeking || phase == .connecting { slot.pending = 1 }
        guard phase == .connecting || phase.isRelaying else { return slot }
        (slot.upstream, slot.socket, slot.tried, slot.backend) = (Descriptor(6), 0, 1, cell)
        slot.marks = [.upstreamWatched]
        slot.timerBucket = 7
        if phase.isRelaying { slot.marks.insert(.clientWatched) }
        return slot
    }

    @Test("a connection goes from one phase to the next, and never back, but for who waits in a queue")
    func order() {
        let all: [Phase] = [
            .free, .peeking, .queued, .connecting, .upgrading, .relaying, .closingByClient, .closingByUpstream,
            .losingClient,
            .losingUpstream,
        ]
        for from in all {
            let next = all.filter { from.leads(to: $0) }
            switch from {
            case .free: #expect(next == [.peeking])
            case .peeking: #expect(next == [.free, .queued, .connecting])
            case .queued: #expect(next == [.free, .peeking, .queued, .connecting], "it is asked about again")
            case .connecting: #expect(next == [.free, .queued, .connecting, .upgrading, .relaying])
            case .upgrading: #expect(next == [.free, .relaying])
            case .relaying:
                #expect(next == [.free, .closingByClient, .closingByUpstream, .losingClient, .losingUpstream])
            case .closingByClient, .closingByUpstream: #expect(next == [.free, .losingClient, .losingUpstream])
            case .losingClient, .losingUpstream: #expect(next == [.free])
            }
            #expect(from.isClosing == (from.isRelaying && from != .relaying))
        }
        #expect(Phase.losing(.client).lost == .client && Phase.losing(.upstream).lost == .upstream)
        #expect(Phase.closing(first: .client) == .closingByClient && Phase.closing(first: .client).lost == nil)
    }

    @Test("a connection on its way is fine in each phase", arguments: [Phase.free, .peeking, .connecting, .relaying])
    func fine(phase: Phase) { #expect(Self.slot(phase).flaw == nil) }

    @Test("one whose backend is asked to begin TLS has its hello, a deadline and both sides watched")
    func upgrading() {
        func upgrading(_ change: (inout Slot) -> Void) -> String? {
            var slot = Self.slot(.connecting)
            slot.enter(.upgrading)
            slot.marks.insert([.clientWatched, .upgraded])
            change(&slot)
            return slot.flaw
        }
        #expect(upgrading { _ in } == nil)
        let changes: [(String, (inout Slot) -> Void)] = [
            ("S38", { $0.pending = Flow.none }), ("S38", { $0.tried = 0 }), ("S38", { $0.up.total = 1 }),
            ("S38", { $0.down.total = 1 }), ("S10", { $0.timerBucket = Flow.none }),
            ("S6", { $0.marks.remove(.clientWatched) }),
        ]
        for (number, change) in changes { #expect(upgrading(change)?.hasPrefix("\(number):") == true) }
    }

    @Test("one that waits for a place has its first bytes, a deadline and a watched client, and no backend")
    func queued() {
        func queued(_ change: (inout Slot) -> Void) -> String? {
            var slot = Self.slot(.peeking)
            slot.enter(.queued)
            slot.timerBucket = 7
            slot.marks = [.clientWatched]
            change(&slot)
            return slot.flaw
        }
        #expect(queued { _ in } == nil)
        let changes: [(inout Slot) -> Void] = [
            { $0.pending = Flow.none }, { $0.timerBucket = Flow.none }, { $0.marks = [] }, { $0.tried = 1 },
        ]
        for change in changes { #expect(queued(change)?.hasPrefix("S37:") == true) }
    }

    @Test("a relaying one is fine while it waits, splices, gathers, and ends")
    func fineOnItsWay() {
        let changes: [(inout Slot) -> Void] = [
            {
                $0.up.state.remove(.writable)
                $0.up.block = 3
                $0.up.blockEnd = 10
            },
            {
                $0.up.total = -16
                $0.up.state.remove(.writable)
                $0.up.block = 3
                $0.up.blockEnd = 16
            },
            {
                $0.down.state = [.splicing, .readable]
                $0.down.pipe = 2
                $0.down.pipeBytes = 9
            },
            {
                $0.down.state = [.splicing, .coalescing, .splicedLately, .writable]
                $0.pacePlace = 4
            },
            { $0.up.state = [.readable] },
            {
                $0.up.state = [.readable, .writable]
                $0.marks.insert(.inRunQueue)
            },
            {
                $0.up.state = [.eof, .finSent]
                $0.enter(.closingByClient)
            },
            {
                $0.up.state = [.heldForInspection, .readable, .writable]
                $0.inspecting = 2
                $0.pending = 1
            },
            {
                $0.down.state = [.sourceLost]
                $0.up.state = [.sinkLost]
                $0.enter(.losingUpstream)
            },
        ]
        for (number, change) in changes.enumerated() {
            var slot = Self.slot(.relaying)
            change(&slot)
            #expect(slot.flaw == nil && slot.standstill == nil, "\(number)")
        }
    }

    private func expect(_ flaw: String, _ phase: Phase, _ change: (inout Slot) -> Void) {
        var slot = Self.slot(phase)
        change(&slot)
        let found = slot.flaw ?? slot.standstill ?? "nothing"
        #expect(found.hasPrefix(flaw + ":"), "\(flaw): \(found)")
    }

    @Test("bytes in two places, or in none")
    func bytes() {
        expect("S1", .relaying) {
            $0.up.block = 3
            $0.up.blockEnd = 10
            $0.up.pipe = 1
            $0.up.pipeBytes = 4
        }
        expect("S1", .relaying) { $0.up.block = 3 }
        expect("S1", .relaying) { $0.down.pipeBytes = 4 }
        expect("S2", .relaying) { $0.up.total = -1 }
        expect("S2", .relaying) {
            $0.down.total = -1
            $0.down.block = 1
            $0.down.blockEnd = 1
        }
        expect("S27", .relaying) { $0.down.state.insert(.coalescing) }
    }

    @Test("a FIN too early, and ends that are none")
    func ends() {
        expect("S3", .relaying) { $0.up.state.insert(.finSent) }
        expect("S3", .relaying) {
            $0.up.state = [.eof, .finSent]
            $0.up.block = 3
            $0.up.blockEnd = 10
        }
        expect("S3", .relaying) {
            $0.up.state = [.eof, .finSent, .heldForInspection]
            $0.inspecting = 1
        }
        expect("S4", .relaying) { $0.up.state.insert(.sourceTimedOut) }
        expect("S5", .relaying) {
            $0.up.state = [.eof, .finSent]
            $0.down.state = [.sinkLost]
        }
        expect("S5", .peeking) { $0.pending = Flow.none }
        expect("S5", .connecting) { $0.pending = Flow.none }
        expect("S11", .relaying) { $0.up.state = [.eof, .finSent] }
        expect("S11", .relaying) {
            $0.up.state = [.eof, .finSent]
            $0.enter(.closingByClient)
            $0.timerBucket = Flow.none
        }
        expect("S29", .relaying) {
            $0.up.state = [.sinkLost]
            $0.up.block = 3
            $0.up.blockEnd = 10
        }
        expect("S29", .relaying) { $0.down.state = [.sourceLost] }
        expect("S29", .relaying) { $0.enter(.losingClient) }
        expect("S30", .relaying) {
            $0.down.state = [.sourceLost]
            $0.enter(.losingUpstream)
            $0.timerBucket = Flow.none
        }
    }

    @Test("backends that are tried at the wrong time, or not counted")
    func backends() {
        expect("S8", .peeking) { $0.tried = 1 }
        expect("S8", .connecting) { $0.tried = 4 }
        expect("S8", .connecting) { $0.tried = 0 }
        expect("S8", .connecting) { $0.up.total = 1 }
        expect("S10", .connecting) { $0.timerBucket = Flow.none }
        expect("S19", .connecting) { $0.backend = nil }
        expect("S19", .connecting) { $0.marks.insert(.direct) }
        expect("S24", .relaying) { $0.socket = Flow.none }
        expect("S28", .relaying) { slot in
            slot.route = UnsafePointer(bitPattern: 64)
        }
    }

    @Test("an inspection that is over and not at once")
    func inspections() {
        expect("S9", .relaying) { $0.inspecting = 1 }
        expect("S9", .relaying) { $0.up.state.insert(.heldForInspection) }
        expect("S9", .relaying) {
            $0.inspecting = 1
            $0.up.state.insert(.heldForInspection)
            $0.up.total = 1
        }
        expect("S9", .relaying) { $0.pending = 1 }
        expect("S9", .peeking) { $0.down.total = 1 }
        expect("S13", .peeking) {
            $0.inspecting = 5
            $0.passed = 4
        }
    }

    @Test("a connection that stands still and need not")
    func standstill() {
        expect("S6", .relaying) { $0.up.state = [.readable, .writable] }
        expect("S6", .relaying) { $0.down.state = [.eof, .writable] }
        expect("S6", .relaying) {
            $0.up.block = 3
            $0.up.blockEnd = 10
        }
        expect("S6", .relaying) { $0.marks.remove(.clientWatched) }
        expect("S6", .relaying) {
            $0.upstream = .none
            $0.socket = Flow.none
        }
        expect("S25", .relaying) { $0.down.state = [.splicing, .coalescing, .splicedLately, .writable] }
        expect("S26", .relaying) { $0.reported.bytesToClient = 1 }
    }
}
