import Pipeline

/// Stand-in for the runtime's own.
package struct WorkerOffer: @unchecked Sendable {
    package let snapshot: UnsafePointer<Snapshot>
    package let listeners: FrozenArray<WorkerListener>
    package let drains: FrozenArray<Drain>
    package init(
        snapshot: UnsafePointer<Snapshot>, listeners: FrozenArray<WorkerListener>, drains: FrozenArray<Drain>
    ) {
        self.snapshot = snapshot
        self.listeners = listeners
        self.drains = drains
    }
}

package struct Drain: Sendable {}
