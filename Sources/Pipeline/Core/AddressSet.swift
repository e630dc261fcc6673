/// A named set of prefixes, as a directive refers to it.
public struct AddressSet: Sendable {
    /// As written: `@load_balancers`, `bogons`, `192.0.2.0/24`.
    public let name: String
    public let prefixes: [Prefix]
    public init(name: String, prefixes: [Prefix]) {
        self.name = name
        self.prefixes = prefixes
    }
}

/// A named set of the config. Any stage may use it as `@NAME`, whichever filter owns the block.
public final class NamedSet: ConfigBlock {
    public let set: AddressSet
    public var name: String { String(set.name.dropFirst()) }
    /// - Parameter name: without its `@`.
    public init(_ name: String, _ prefixes: [Prefix]) { set = AddressSet(name: "@\(name)", prefixes: prefixes) }
}
