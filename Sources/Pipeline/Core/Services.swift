/// Services of a node for its stages, at most one of each type. The supervisor makes them; a stage looks one up by type
/// when its worker memory is made, and never through a global.
///
/// Threading: immutable; the things themselves say who may call them. Ownership: a copy keeps them alive. Unmanaged
/// pointers of a stage to them are valid as long as its worker runs.
public struct Services: Sendable {
    public static let none = Services()
    private let things: [ObjectIdentifier: any AnyObject & Sendable]

    public init(_ things: any (AnyObject & Sendable)...) {
        self.things = Dictionary(things.map { (ObjectIdentifier(type(of: $0)), $0) }) { _, last in last }
    }

    /// The service of exactly that class; nil: none.
    public func find<Thing: AnyObject & Sendable>(_ type: Thing.Type) -> Thing? {
        things[ObjectIdentifier(type)] as? Thing
    }
}

/// The purpose of a stage's worker memory (``Filter/makeState(_:_:)``).
public struct StageContext: Sendable {
    /// A dry run by `explain`: there is no worker, and nothing is counted.
    public static let explaining = StageContext(worker: nil)

    /// The worker's number; nil: there is none.
    public let worker: Int?
    public let services: Services

    public init(worker: Int?, services: Services = .none) {
        self.worker = worker
        self.services = services
    }
}
