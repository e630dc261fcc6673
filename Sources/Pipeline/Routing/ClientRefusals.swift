import Pipeline

extension RefusalReasons {
    /// Of a route by what the client's first bytes are: who else has that at its port (R8). Nil: it is another route, or
    /// something else refuses it.
    func byClient(_ node: Claims.Node) -> ApplyRun.Refusal? {
        guard node.group != Claims.none else { return nil }
        let number = claims.groups[Int(node.group)].name
        let name = book.names[Int(number)]
        guard name.kind == .client else { return nil }
        let (text, own) = (self.name(node), owner(node.env))
        if node.cause == .samePort {
            return (
                "when_protocol", "\(text) is taken: the route \"\(twin(of: node))\" has it already",
                "remove one of the two, or use another port"
            )
        }
        if name.taken != NameBook.none, name.taken != node.env {
            let group = claims.group(number, name.taken).map { claims.groups[Int($0)] }
            let holder = claimant(name.taken, group.flatMap { first(of: $0) })
            return (
                "when_protocol", "\(text) belongs to \(holder), so \(own) can't have it",
                "use another port, or remove it from its owner first"
            )
        }
        guard let others = others(at: number, than: node.env) else { return nil }
        return (
            "when_protocol",
            "\(text) is claimed by \(own) and by \(others), and the owner is unknown, so neither has it",
            "use another port for all but one"
        )
    }
}
