import Pipeline

/// What a ``RoutePolicy`` is made from.
struct RoutePolicySpec: Hashable, Sendable {
    let idleTimeout: TimeSpan?
    let queue: Queue?
    let groupQueue: Queue?
    let source: SourceSpec?

    struct Queue: Hashable, Sendable {
        let whose: QueueName
        let spec: QueueSpec
    }

    /// Of a route of desired state. Nil: it says nothing of that.
    init?(idleTimeout: TimeSpan?, queue: QueueSpec?, id: String, env: String) {
        guard idleTimeout != nil || queue != nil else { return nil }
        self.idleTimeout = idleTimeout
        // There an `env_id` alone names an env; no env of a config file has an empty org.
        self.queue = queue.map { Queue(whose: .route(id: id, EnvName(org: "", app: "", env: env)), spec: $0) }
        groupQueue = self.queue
        source = nil
    }

    private init(idleTimeout: TimeSpan) {
        (self.idleTimeout, queue, groupQueue, source) = (idleTimeout, nil, nil, nil)
    }

    /// Where there is no room for its queue.
    var withoutQueue: RoutePolicySpec? { idleTimeout.map { RoutePolicySpec(idleTimeout: $0) } }

    /// Nil: neither the route nor its block says anything of that.
    init?(_ route: RouteSpec, of block: GroupSpec?) {
        guard route.idleTimeout != nil || route.queue != nil || block?.queue != nil || route.source != nil else {
            return nil
        }
        idleTimeout = route.idleTimeout
        source = route.source
        let env = EnvName(org: route.org, app: route.app, env: route.env)
        queue = route.queue.map { Queue(whose: .route(id: route.id, env), spec: $0) }
        // A route with backends of its own has one queue for all that it waits for.
        groupQueue = block.map { block in block.queue.map { Queue(whose: .block(block.name), spec: $0) } } ?? queue
    }
}

/// Whose connections wait in a queue.
enum QueueName: Hashable, Sendable {
    case route(id: String, EnvName)
    case block(String)
}

/// The policies and queues of a node's config, each at a fixed address until the node ends: as many as its configs have had.
/// A reload that says the same of a route gets the same; one that changes a queue's bound keeps the queue.
struct RoutePolicies {
    private var policies: [RoutePolicySpec: UnsafeMutablePointer<RoutePolicy>] = [:]
    private var queues: [QueueName: UnsafeMutablePointer<WaitQueue>] = [:]
    /// Routes that say the same take turns together.
    private var sources: [SourceSpec: UnsafePointer<SourceAddresses>] = [:]
    /// Routes of desired state come and go for as long as a node runs, and connections may hold a queue (R27).
    static let limit = 65_536

    /// Whether there is room for a queue of a route of desired state.
    func hasRoom(for spec: RoutePolicySpec) -> Bool {
        spec.queue == nil || policies.count < RoutePolicies.limit || policies[spec] != nil
    }

    mutating func policy(_ spec: RoutePolicySpec) -> UnsafePointer<RoutePolicy> {
        if let known = policies[spec] { return UnsafePointer(known) }
        let made = UnsafeMutablePointer<RoutePolicy>.allocate(capacity: 1)
        made.initialize(
            to: RoutePolicy(
                idleTimeout: spec.idleTimeout, queue: spec.queue.map { rule($0) },
                groupQueue: spec.groupQueue.map { rule($0) }, source: spec.source.map { addresses($0) }))
        policies[spec] = made
        return UnsafePointer(made)
    }

    private mutating func addresses(_ spec: SourceSpec) -> UnsafePointer<SourceAddresses> {
        let known = sources[spec] ?? SourceAddresses.make(spec)
        sources[spec] = known
        return known
    }

    private mutating func rule(_ queue: RoutePolicySpec.Queue) -> QueueRule {
        let known = queues[queue.whose] ?? .allocate(capacity: 1)
        if queues.updateValue(known, forKey: queue.whose) == nil { known.initialize(to: WaitQueue()) }
        return QueueRule(UnsafePointer(known), limit: queue.spec.limit, patience: queue.spec.patience)
    }

    /// When nothing of the node runs any more.
    func deallocate() {
        for policy in policies.values { policy.deinitialize(count: 1).deallocate() }
        for queue in queues.values { queue.deinitialize(count: 1).deallocate() }
        for source in sources.values { SourceAddresses.free(source) }
    }
}
