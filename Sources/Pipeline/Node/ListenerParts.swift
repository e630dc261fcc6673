import CLinux
import Pipeline
import PipelineRuntime

/// The sockets of one listener, at least one for each worker.
struct OpenListener {
    let sockets: [Descriptor]
    let bound: Endpoint
    /// As ``ListenerKeeper/Kept/interface``.
    let interface: UInt32
    let isMultipath: Bool
}

/// Numbers of listeners, used again once they are free.
struct IndexPool {
    private var next = 0
    private var free: [UInt16] = []

    /// Nil: there are 65,536 of them.
    mutating func take() -> UInt16? {
        if let index = free.popLast() { return index }
        guard let index = UInt16(exactly: next) else { return nil }
        next += 1
        return index
    }
    mutating func give(back index: UInt16) { free.append(index) }
}

enum Addresses {
    /// True if a socket can bind to `address`: the machine has it, or allows non-local binds.
    static func isUsable(_ address: IPAddress) -> Bool {
        var at = cl_endpoint(high: address.high, low: address.low, port: 0)
        return cl_can_bind(&at) == 0
    }
}

/// Endpoints for people: ports of one address in a row are one text, `[::]:30000-30100`.
package enum EndpointRuns {
    package static func texts(_ endpoints: [Endpoint]) -> [String] {
        runs(endpoints) { $0.isNext(to: $1) }.compactMap { run in
            guard let first = run.first, let last = run.last else { return nil }
            return text(first, last)
        }
    }

    package static func text(_ first: Endpoint, _ last: Endpoint) -> String {
        first == last ? "\(first)" : "\(first)-\(last.port)"
    }

    /// - Parameter continues: whether the second belongs to the run that the first ends.
    package static func runs<Item>(_ items: [Item], _ continues: (Item, Item) -> Bool) -> [ArraySlice<Item>] {
        var runs: [ArraySlice<Item>] = []
        var start = 0
        for index in items.indices where index + 1 == items.count || !continues(items[index], items[index + 1]) {
            runs.append(items[start...index])
            start = index + 1
        }
        return runs
    }
}

extension Endpoint {
    /// The same address at the port before `other`'s.
    package func isNext(to other: Endpoint) -> Bool {
        address == other.address && port < .max && port + 1 == other.port
    }
}
