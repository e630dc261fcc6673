import Pipeline

/// Which listener takes the connections that a removed one has queued.
struct ListenerHeirs {
    private struct Place: Hashable {
        let bound: Endpoint
        /// 0: any.
        let interface: UInt32
    }
    private let listeners: [Place: WorkerListener]

    init(_ wanted: UnsafeBufferPointer<WorkerListener>) {
        listeners = Dictionary(
            wanted.map { (Place(bound: $0.bound, interface: $0.interface), $0) },
            uniquingKeysWith: { first, _ in first })
    }

    /// The one at the same endpoint and interface, else the one there for all interfaces, which takes what comes by any.
    /// Nobody takes the connections of another interface.
    func heir(of old: WorkerListener) -> WorkerListener? {
        listeners[Place(bound: old.bound, interface: old.interface)]
            ?? listeners[Place(bound: old.bound, interface: 0)]
    }
}
