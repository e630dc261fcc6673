import FilterBackendSelect
import Pipeline

/// When which target's turn is: a queue by time for each `health` block, and the block's rate. Pure.
///
/// A target is in the queue from ``add(_:of:at:)`` until ``next(_:)`` gives it out, once: what is under way is not in
/// it, so no target can have two probes at once.
package struct ProbeSchedule {
    package typealias Identity = UInt64

    private struct Block {
        let name: String
        var rate: ProbeRate
        let perSecond: UInt32
        var queue = TimeQueue()
    }

    private var blocks: [Block] = []
    /// Which block is asked first, so that a busy one can't starve the others of the places that all share.
    private var turn = 0

    package init() {}

    package mutating func add(_ target: Identity, of settings: HealthSettings, at time: Instant) {
        blocks[index(of: settings)].queue.push(TimeQueue.Item(time: time, target: target))
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

    /// Empties the queues. The rates go on: a reload is no fresh allowance.
    package mutating func removeAll() {
        for index in blocks.indices { blocks[index].queue = TimeQueue() }
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

/// The earliest first: a binary heap.
struct TimeQueue {
    struct Item {
        let time: Instant
        let target: ProbeSchedule.Identity
    }

    private var items: [Item] = []

    var first: Item? { items.first }
    var count: Int { items.count }

    mutating func push(_ item: Item) {
        items.append(item)
        var child = items.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard items[child].time < items[parent].time else { return }
            items.swapAt(child, parent)
            child = parent
        }
    }

    mutating func pop() -> Item? {
        guard let first = items.first, let last = items.popLast() else { return nil }
        guard !items.isEmpty else { return first }
        items[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < items.count {
                if items[child].time < items[least].time { least = child }
            }
            guard least != parent else { return first }
            items.swapAt(parent, least)
            parent = least
        }
    }
}
