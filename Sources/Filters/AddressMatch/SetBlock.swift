import Pipeline

/// `set NAME { PREFIX … }`, `set NAME file PATH`.
struct SetMembers: MemberList {
    static let block = BlockDescriptor(
        "set", BlockDescriptor.Members("prefix", "prefixes", contained: "address", makesSets: true),
        of: SetMembers.self,
        "names prefixes, IPv4 and IPv6, for stages to use as `@NAME`",
        use: { "write `@\($0)` in a stage" },
        shown: { block in
            guard let set = (block as? NamedSet)?.set else { return [] }
            return [membersText(set.prefixes.prefix(shownMembers).map(\.description), of: set.prefixes.count)]
        })

    private var prefixes: [Prefix] = []
    /// Nil: duplicates are not reported.
    private var known: Set<Prefix>?

    init(isDistinct: Bool) { known = isDistinct ? [] : nil }

    var count: Int { prefixes.count }

    mutating func add(_ text: UnsafeBufferPointer<UInt8>) throws(ValueProblem) -> Bool {
        guard let prefix = Prefix(ascii: text) else {
            // Slow path for invalid members: produces the message.
            _ = try ConfigValue.prefix(String(decoding: text, as: UTF8.self))
            throw ValueProblem(message: "this is not a prefix")
        }
        guard known?.insert(prefix).inserted != false else { return false }
        prefixes.append(prefix)
        return true
    }

    func block(_ name: String) -> any ConfigBlock { NamedSet(name, prefixes) }
}
