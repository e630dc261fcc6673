import Pipeline

/// An instance's address that is bound to one interface (R19).
public struct BoundAddress: Hashable, Sendable {
    public let interface: String
    public let address: IPAddress

    public init(interface: String, address: IPAddress) {
        self.interface = interface
        self.address = address
    }
}

extension StateDocument {
    /// The addresses of `node`'s instances that have an `interface`, in order.
    public func boundAddresses(node name: String) -> [BoundAddress] {
        guard !name.isEmpty else { return [] }
        var found: Set<BoundAddress> = []
        for instance in instances where instance.interface != .empty && instance.status.hasAddress {
            guard string(instance.node) == name else { continue }
            for address in [instance.address] + (instance.ipv4.map { [$0] } ?? []) {
                found.insert(BoundAddress(interface: string(instance.interface), address: address))
            }
        }
        return found.sorted { ($0.address, $0.interface) < ($1.address, $1.interface) }
    }
}

extension RoutingState {
    /// The same of objects: by this node's instances, whatever others there are.
    public func boundAddresses(of objects: some DesiredObjects) -> [BoundAddress] {
        guard !instances.here.isEmpty else { return [] }
        let ids = Set(instances.here.map { Array($0.utf8) })
        return StateDocument.some([.instance: ids], of: objects, seed: seed).document?.boundAddresses(node: nodeName)
            ?? []
    }
}

extension ObjectDraft {
    /// IFNAMSIZ is 16, with its NUL.
    private static let longestInterface = 15

    /// A valid interface name that nft reads verbatim.
    mutating func interface(
        _ reader: inout JSONReader, _ field: StaticString, into arena: TextArena
    ) throws(JSONError) -> TextRef? {
        guard let name = try text(&reader, field, optional: true, into: arena) else { return nil }
        let text = arena.string(name)
        let isTaken = text == "." || text == ".." || text.utf8.contains { ObjectDraft.notInInterfaces.contains($0) }
        guard text.utf8.count <= ObjectDraft.longestInterface, !isTaken else {
            fault(
                reader, "\(field)", "can't be the name of an interface",
                remedy: "write one of 1 to \(ObjectDraft.longestInterface) characters, such as vm7")
            return nil
        }
        return name
    }

    private static let notInInterfaces = Array("/:\"\\*".utf8)
}
