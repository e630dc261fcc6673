/// What a connection runs on, from its first stage to its end: a program and a route table, both immutable.
///
/// Threading: made by control, adopted by each worker at the top of its loop. Ownership: control; it may free a
/// snapshot when every worker has adopted a later one and counts no connection on this one.
package struct Snapshot: @unchecked Sendable {
    /// Unmanaged on purpose: see the ownership note.
    package let program: Unmanaged<Program>
    package let chains: FrozenArray<Chain>
    package let routes: RouteTableHandle
    package let instances: InstanceDirectory
    /// Grows by one each time control makes a snapshot.
    package let generation: UInt64
    /// The shortest of its chains; nil: no stage wants to hear of living connections.
    package let progressInterval: TimeSpan?

    package init(program: Program, routes: RouteTableHandle, instances: InstanceDirectory = .empty, generation: UInt64)
    {
        self.program = .passUnretained(program)
        self.chains = program.chains
        self.routes = routes
        self.instances = instances
        self.generation = generation
        self.progressInterval = program.chains.buffer.compactMap(\.progressInterval).min()
    }
}
