import Pipeline

/// An address counts its connections once, whichever routes and blocks lead there; a `max` is its line's own.
extension Checker {
    /// In a file without errors: one address with a `max` here and another, or none, there.
    func remarkOnOtherLimits() {
        var first: [String: Located<BackendSpec>] = [:]
        var said: Set<String> = []
        // A group once, however many routes name it.
        let lists =
            groupNames.compactMap { groups[$0]?.backends }
            + routes.filter { $0.group == nil && $0.map == nil }.map(\.backends)
        for backend in lists.joined() {
            let place = backend.value.place
            guard let known = first[place] else {
                first[place] = backend
                continue
            }
            guard known.value.maxConnections != backend.value.maxConnections, said.insert(place).inserted else {
                continue
            }
            reporter.warning(
                backend.span,
                "\(quoted(place)) has \(Checker.limit(backend)) here and \(Checker.limit(known)) elsewhere: all its "
                    + "connections count for each line that has one",
                help: "write the same `max` on every line of this backend",
                related: [.init(known.span, "it has \(Checker.limit(known)) here")])
        }
    }

    private static func limit(_ backend: Located<BackendSpec>) -> String {
        backend.value.maxConnections == 0 ? "no `max`" : "`max \(backend.value.maxConnections)`"
    }
}
