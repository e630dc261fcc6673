import FilterBackendSelect
import Pipeline

/// The schedule of probes: a time-ordered queue for each `health` block, with the block's rate. Pure.
///
/// A target is in the queue from ``add(_:of:at:)`` until ``next(_:)`` returns it. A target with a probe in flight is
/// not in the queue, so that it never has two.
package struct ProbeSchedule {
    package typealias Identity = UInt64

    private struct Block {
        let name: String
        var rate: ProbeRate
        let perSecond: UInt32
        var queue = Heap<Entry>()
    }

    private struct Entry: Comparable {
        let time: Instant
        let target: Identity
        static func < (a: Entry, b: Entry) -> Bool { a.time < b.time }
    }

    private var blocks: [Block] = []
    /// The block to ask first, in rotation, so that a busy one can't starve the others of shared places.
    private var turn = 0

    package init() {}

    package mutating func add(_ target: Identity, of settings: HealthSettings, at time: Instant) {
        blocks[index(of: settings)].queue.push(Entry(time: time, target: target))
    }

    /// The next target whose time has come and whose block may begin one; nil: none.
    package mutating func next(_ now: Instant) -> Identity? {
        for offset in 0..<blocks.count {
            let index = (turn + offset) % blocks.count
            guard let first = blocks[index].queue.first, first.time <= now, blocks[index].rate.take(now) else {
                continue
            }
            turn = index + 1
            return blocks[index].queue.pop()?.target
        }
        return nil
    }

    /// When ``next(_:)`` will have something; nil: never.
    package var wakeUp: Instant? {
        blocks.compactMap { block in block.queue.first.map { max($0.time, block.rate.next) } }.min()
    }

    package var count: Int { blocks.reduce(0) { $0 + $1.queue.count } }

    /// Empties the queues. The rates continue, so that a reload grants no fresh burst.
    package mutating func removeAll() {
        for index in blocks.indices { blocks[index].queue = Heap() }
    }

    private mutating func index(of settings: HealthSettings) -> Int {
        if let index = blocks.firstIndex(where: { $0.name == settings.name }) {
            if blocks[index].perSecond != settings.probesPerSecond {
                blocks[index] = Block(
                    name: settings.name, rate: ProbeRate(perSecond: settings.probesPerSecond),
                    perSecond: settings.probesPerSecond, queue: blocks[index].queue)
            }
            return index
        }
        blocks.append(
            Block(
                name: settings.name, rate: ProbeRate(perSecond: settings.probesPerSecond),
                perSecond: settings.probesPerSecond))
        return blocks.count - 1
    }
}
