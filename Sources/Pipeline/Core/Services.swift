/// What a node lends to its stages: at most one thing of a type. The supervisor makes them, and hands them to whoever makes
/// workers; a stage that needs one finds it by its type when its worker memory is made, and never through a global.
///
/// Threading: immutable; the things themselves say who may call them. Ownership: a copy keeps them alive. What a stage keeps of
/// them without a reference is valid as long as its worker runs.
public struct Services: Sendable {
    public static let none = Services()
    private let things: [ObjectIdentifier: any AnyObject & Sendable]

    public init(_ things: any (AnyObject & Sendable)...) {
        self.things = Dictionary(things.map { (ObjectIdentifier(type(of: $0)), $0) }) { _, last in last }
    }

    /// The one of that class itself; nil: the node has none.
    public func find<Thing: AnyObject & Sendable>(_ type: Thing.Type) -> Thing? {
        things[ObjectIdentifier(type)] as? Thing
    }
}

/// For whom a stage makes worker memory (``Filter/makeState(_:_:)``).
public struct StageContext: Sendable {
    /// `explain` asks: no worker is there, and nothing is counted.
    public static let explaining = StageContext(worker: nil)

    /// The worker's number; nil: there is none.
    public let worker: Int?
    public let services: Services

    public init(worker: Int?, services: Services = .none) {
        self.worker = worker
        self.services = services
    }
}
