/// A worker's current configuration: the program for new connections, and the route table for all of them (R1).
/// Immutable.
///
/// Threading: made by control, applied by each worker at the top of its loop. Ownership: control; it may free a
/// snapshot and its table when every worker has applied a later one: no connection keeps either. Programs live longer, see
/// ``Program/users``.
public struct Snapshot: @unchecked Sendable {
    /// Unmanaged on purpose: see the ownership note.
    public let program: Unmanaged<Program>
    public let routes: RouteTableHandle
    public let instances: InstanceDirectory
    /// Grows by one each time control makes a snapshot.
    public let generation: UInt64
    /// Some stage reads the wall clock.
    public let readsWallClock: Bool
    /// A new program that takes a share of new connections first; nil: none (R29).
    public let canary: CanaryShare?

    public init(
        program: Program, routes: RouteTableHandle, instances: InstanceDirectory = .empty, generation: UInt64,
        canary: CanaryShare? = nil
    ) {
        self.canary = canary
        self.program = .passUnretained(program)
        self.routes = routes
        self.instances = instances
        self.generation = generation
        self.readsWallClock = program.capabilities.contains(.readsWallClock) || canary?.readsWallClock == true
    }
}
