import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("Lines of connections that wait for a place") struct WaitingLinesTests {
    /// Queues at fixed addresses, for as long as a test runs.
    private final class Queues {
        let first: UnsafeMutablePointer<WaitQueue>
        let count: Int
        init(_ count: Int = 1) {
            self.count = count
            first = .allocate(capacity: count)
            for i in 0..<count { (first + i).initialize(to: WaitQueue()) }
        }
        deinit { first.deinitialize(count: count).deallocate() }
        subscript(_ index: Int) -> UnsafePointer<WaitQueue> { UnsafePointer(first + index) }
    }

    private func lines(_ capacity: Int = 64, worker: Int = 0) throws -> WaitingLines {
        guard let lines = WaitingLines(capacity: capacity, worker: worker) else { throw Missing() }
        return lines
    }
    private struct Missing: Error {}

    private func network(_ number: Int) -> IPAddress { IPAddress(v4: 0x0A00_0000 + UInt32(number)) }
    private func time(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: (1000 + milliseconds) * 1_000_000) }

    /// Serves the whole line; the slots in the order of their turns.
    private func served(_ lines: inout WaitingLines) -> [Int] {
        var order: [Int] = []
        var line = lines.nextLine()
        while line != 0, let slot = lines.head(of: line) {
            order.append(slot)
            _ = lines.leave(slot, at: time(5000), served: true)
            if lines.head(of: line) == nil { line = lines.nextLine() }
        }
        return order
    }

    @Test("one network: in order of arrival; several: in turn, each in order of arrival")
    func order() throws {
        let queues = Queues()
        var lines = try lines()
        for (slot, from) in [1, 1, 1, 1, 2, 3, 2].enumerated() {
            lines.enter(slot, queues[0], of: network(from), at: time(UInt64(slot)))
        }
        holds(lines.count == 7 && lines.lineCount == 1)
        holds(served(&lines) == [0, 4, 5, 1, 6, 2, 3])
        holds(lines.count == 0 && lines.lineCount == 0 && queues[0].pointee.next == nil)
    }

    @Test("IPv6 counts by /64, and an IPv4 address is never one of those")
    func networks() throws {
        let queues = Queues()
        var lines = try lines()
        let one = IPAddress(high: 0x2001_0DB8_0000_0001, low: 1)
        let same = IPAddress(high: 0x2001_0DB8_0000_0001, low: 99)
        let other = IPAddress(high: 0x2001_0DB8_0000_0002, low: 1)
        for (slot, address) in [one, same, same, other].enumerated() {
            lines.enter(slot, queues[0], of: address, at: time(0))
        }
        holds(served(&lines) == [0, 3, 1, 2])
    }

    @Test("who leaves gives up its place in the line alone, and is told how long it has waited")
    func leaving() throws {
        let queues = Queues()
        var lines = try lines()
        for slot in 0..<4 { lines.enter(slot, queues[0], of: network(slot / 2), at: time(UInt64(slot * 10))) }
        holds(lines.leave(0, at: time(250), served: false) == 250)
        holds(lines.leave(0, at: time(260), served: false) == 0, "it has left")
        holds(lines.leave(3, at: time(250), served: false) == 220)
        holds(!lines.contains(0) && lines.contains(1) && lines.queue(of: 1) == queues[0])
        holds(served(&lines) == [1, 2])
    }

    @Test("lines of several queues know nothing of each other")
    func severalLines() throws {
        let queues = Queues(3)
        var lines = try lines()
        for slot in 0..<9 { lines.enter(slot, queues[slot % 3], of: network(slot % 2), at: time(UInt64(slot))) }
        holds(lines.lineCount == 3)
        for slot in [1, 4, 7] { _ = lines.leave(slot, at: time(100), served: false) }
        holds(lines.lineCount == 2 && queues[1].pointee.next == nil && queues[0].pointee.next != nil)
        holds(Set(served(&lines)) == [0, 2, 3, 5, 6, 8])
    }

    @Test("workers take turns: who was not served for longest is next, and loses its turn if it does not take it")
    func workers() throws {
        let queues = Queues()
        var mine = try lines(worker: 0)
        var other = try lines(worker: 3)
        other.enter(0, queues[0], of: network(1), at: time(0))
        mine.enter(0, queues[0], of: network(1), at: time(10))
        mine.enter(1, queues[0], of: network(1), at: time(20))
        let line = mine.nextLine()
        holds(mine.earlier(than: line, isTick: false)?.isOf(worker: 3) == true)
        holds(other.earlier(than: other.nextLine(), isTick: false) == nil)
        other.enter(1, queues[0], of: network(1), at: time(25))
        _ = other.leave(0, at: time(30), served: true)
        holds(mine.earlier(than: line, isTick: false) == nil, "the other one was served since")
        _ = mine.leave(0, at: time(40), served: true)
        holds(mine.earlier(than: line, isTick: false)?.isOf(worker: 3) == true)
        // At the first look it is left to the other, at the second not.
        holds(mine.earlier(than: line, isTick: true) != nil)
        holds(mine.earlier(than: line, isTick: true) == nil)
        holds(mine.earlier(than: line, isTick: false) != nil)
        _ = other.leave(1, at: time(60), served: false)
        holds(mine.earlier(than: line, isTick: false) == nil, "nobody waits there any more")
        _ = mine.leave(1, at: time(70), served: false)
        holds(queues[0].pointee.next == nil)
    }

    @Test("any order of coming, leaving and being served is as in a model of lists")
    func model() throws {
        var random = SplitMix64(seed: 11)
        for _ in 0..<50 {
            let queues = Queues(3)
            var lines = try lines(32)
            var model: [Int: [(network: Int, slots: [Int])]] = [:]
            var free = Array(0..<32)
            func remove(_ slot: Int, served: Bool) {
                for (queue, networks) in model {
                    guard let place = networks.firstIndex(where: { $0.slots.contains(slot) }) else { continue }
                    model[queue]?[place].slots.removeAll { $0 == slot }
                    let one = model[queue]?.remove(at: place)
                    guard let one, !one.slots.isEmpty else { break }
                    if served { model[queue]?.append(one) } else { model[queue]?.insert(one, at: place) }
                }
                free.append(slot)
            }
            for step in 0..<400 {
                let now = time(UInt64(step))
                switch random.below(3) {
                case 0 where !free.isEmpty:
                    let slot = free.remove(at: random.below(free.count))
                    let (queue, from) = (random.below(3), random.below(4))
                    lines.enter(slot, queues[queue], of: network(from), at: now)
                    if let place = model[queue]?.firstIndex(where: { $0.network == from }) {
                        model[queue]?[place].slots.append(slot)
                    } else {
                        model[queue, default: []].append((from, [slot]))
                    }
                case 1:
                    let slot = random.below(32)
                    guard lines.contains(slot) else { continue }
                    _ = lines.leave(slot, at: now, served: false)
                    remove(slot, served: false)
                default:
                    let line = lines.nextLine()
                    guard line != 0, let slot = lines.head(of: line) else { continue }
                    let place = lines.queue(of: line)
                    let queue = try #require((0..<3).first { queues[$0] == place })
                    holds(model[queue]?.first?.slots.first == slot)
                    _ = lines.leave(slot, at: now, served: true)
                    remove(slot, served: true)
                }
                holds(lines.count == 32 - free.count)
                holds(lines.lineCount == model.values.count { $0.contains { !$0.slots.isEmpty } })
            }
        }
    }
}
