import CLinux
import Glibc
import Pipeline
import PipelineThreads
import Synchronization
import Testing

/// Lets through as often as it was opened.
private final class Gate: Sendable {
    let read: Int32
    private let write: Int32

    init() throws {
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        (read, write) = (ends[0], ends[1])
    }
    deinit {
        close(read)
        close(write)
    }

    func open() { _ = Glibc.write(write, "x", 1) }
    func pass() {
        var byte: UInt8 = 0
        _ = Glibc.read(read, &byte, 1)
    }
}

private final class Told: Sendable {
    let number = Mutex(0)
    let seen = Mutex<[Int]>([])
}

@Suite("The loop of a control thread")
struct ThreadLoopTests {
    private static let stackBytes = 1 << 18

    @Test("what came before a wake-up is seen by the iteration after it, and the last turn is told to end")
    func wakes() throws {
        let (loop, turned, told) = (try #require(ThreadLoop.make().loop), try Gate(), Told())
        let failed = loop.start("test", stackBytes: Self.stackBytes) {
            let number = told.number.withLock { $0 }
            // Once: it may be told to end while this turn runs, and then the next one is the last.
            let isEnding = loop.isEnding
            told.seen.withLock { $0.append(isEnding ? -1 : number) }
            turned.open()
            return isEnding ? .over : .wait(until: nil)
        }
        try #require(failed == 0)
        turned.pass()
        for number in 1...100 {
            told.number.withLock { $0 = number }
            loop.wake()
            turned.pass()
        }
        loop.stop()
        #expect(told.seen.withLock { $0 } == Array(0...100) + [-1])
        // Nothing runs any more: nothing happens.
        loop.stop()
        #expect(loop.stop(patience: .zero))
    }

    @Test("a turn comes when its time has come, when a descriptor has something, and at once when it says so")
    func reasons() throws {
        let (loop, gate, over, told) = (try #require(ThreadLoop.make().loop), try Gate(), try Gate(), Told())
        let began = Instant(nanoseconds: cl_now())
        let failed = loop.start("test", stackBytes: Self.stackBytes) {
            let turn = told.number.withLock { number in
                number += 1
                return number
            }
            switch turn {
            case 1: return .again
            case 2: return .wait(until: began + .milliseconds(20))
            case 3:
                told.seen.withLock { $0 = [Instant(nanoseconds: cl_now()) >= began + .milliseconds(20) ? 1 : 0] }
                gate.open()
                return .wait(until: nil, [.readable(gate.read)])
            default:
                over.open()
                return .over
            }
        }
        try #require(failed == 0)
        over.pass()
        loop.stop()
        #expect(told.number.withLock { $0 } == 4 && told.seen.withLock { $0 } == [1])
    }

    @Test("a thread that stands in a turn is left alone after a while, and ended when it has gone on")
    func patience() throws {
        let (loop, began, gate) = (try #require(ThreadLoop.make().loop), try Gate(), try Gate())
        let failed = loop.start("test", stackBytes: Self.stackBytes) {
            if loop.isEnding { return .over }
            began.open()
            gate.pass()
            return .wait(until: nil)
        }
        try #require(failed == 0)
        began.pass()
        #expect(!loop.stop(patience: .milliseconds(10)))
        gate.open()
        #expect(loop.stop(patience: .seconds(60)))
    }

    @Test("waiting for descriptors: what for, in vain, and without waiting")
    func polls() throws {
        let gate = try Gate()
        var items: [cl_poll_item] = [.readable(gate.read)]
        #expect(Poll.wait(&items, until: Instant(nanoseconds: 0)) == 0 && items[0].got == 0)
        gate.open()
        #expect(Poll.wait(&items, until: nil) == 1 && items[0].got == UInt8(CL_READABLE))
        var nothing = [cl_poll_item(gate.read)]
        #expect(Poll.wait(&nothing, until: Instant(nanoseconds: 0)) == 0)
        #expect(!Poll.isWritable(gate.read))
    }
}
