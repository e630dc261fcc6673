import Pipeline
import PipelineRouting

/// What must hold when any bytes whatever come as a document or a change. For the tests beside it and for Fuzz/run.
enum UpdateProperties {
    private static let seed = HashSeed(0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210)

    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let (update, problems) = StateUpdate.read(bytes, as: .either, seed: seed)
        guard let update else { return alone(problems) ?? asDocument(bytes, update: nil) }
        guard !problems.hasFatal else { return "an update in spite of \(problems.list)" }
        let puts = Puts(update)
        return puts.problem ?? deletes(update, puts) ?? exported(update, puts) ?? asDocument(bytes, update: update)
    }

    private static func alone(_ problems: RouteProblems) -> String? {
        let fatal = problems.list.filter { $0.severity == .fatal }
        return fatal.count == 1 && problems.list.last == fatal[0] ? nil : "no update, \(fatal.count) fatal problems"
    }

    /// What is put, in order.
    private struct Puts {
        var all: [(kind: StateKind, id: [UInt8], text: [UInt8])] = []
        /// Nil, or what is wrong.
        private(set) var problem: String?

        init(_ update: StateUpdate) {
            update.forEachPut { kind, id, text in
                if let last = all.last,
                    last.kind.rawValue > kind.rawValue
                        || (last.kind == kind && !last.id.lexicographicallyPrecedes(id))
                {
                    problem = "\(String(decoding: id, as: UTF8.self)) is not behind the one before"
                }
                if !(1...255).contains(id.count) { problem = "an id of \(id.count) bytes" }
                all.append((kind, Array(id), Array(text)))
            }
        }

        func isSame(_ other: Puts) -> Bool {
            all.elementsEqual(other.all) { $0.kind == $1.kind && $0.id == $1.id && $0.text == $1.text }
        }
    }

    private static func deletes(_ update: StateUpdate, _ puts: Puts) -> String? {
        let deletes = update.deletes
        if update.form == .document, !deletes.isEmpty { return "a document that deletes" }
        for (one, next) in zip(deletes, deletes.dropFirst())
        where one.kind.rawValue > next.kind.rawValue
            || (one.kind == next.kind && !one.id.lexicographicallyPrecedes(next.id))
        {
            return "\(one) is deleted in front of \(next)"
        }
        for delete in deletes where puts.all.contains(where: { $0.kind == delete.kind && $0.id == delete.id }) {
            return "\(delete) is put as well"
        }
        return nil
    }

    // MARK: There and back

    private static func export(_ puts: Puts) -> [UInt8]? {
        var export = StateExport(revision: 7, actor: "a\"\\b")
        for put in puts.all {
            guard put.text.withUnsafeBytes({ export.add(put.kind, $0) }) else { return nil }
        }
        export.end()
        return export.take()
    }

    private static func exported(_ update: StateUpdate, _ puts: Puts) -> String? {
        guard let text = export(puts) else { return "the export refuses an object" }
        return text.withUnsafeBufferPointer { text -> String? in
            let (again, problems) = StateUpdate.read(text, as: .document, seed: seed)
            guard let again else { return "the export is no document: \(problems.list)" }
            guard problems.isEmpty, !again.hasUnusable else { return "the export has problems: \(problems.list)" }
            guard again.revision == 7, again.actor == "a\"\\b" else { return "the export has another head" }
            return Puts(again).isSame(puts) ? nil : "the export has other objects"
        }
    }

    // MARK: As the other reader judges

    /// The reader of whole documents refuses the same ones, and finds the same in what was put.
    private static func asDocument(_ bytes: UnsafeBufferPointer<UInt8>, update: StateUpdate?) -> String? {
        let (document, problems) = StateDocument.parse(bytes, seed: seed)
        let (split, splitProblems) = StateUpdate.read(bytes, as: .document, seed: seed)
        guard let document, let split else {
            guard document == nil, split == nil else { return "only one reader takes it: \(problems.list)" }
            if let update { return update.form == .document ? "refused as a document alone" : changed(update) }
            let (one, other) = (problems.list.last, splitProblems.list.last)
            return one == other ? nil : "\(one as Any), the other reader says \(other as Any)"
        }
        guard let update, update.form == .document else { return "taken as a document, refused as either" }
        guard document.revision == split.revision, document.actor == split.actor else { return "another head" }
        guard document.isEmpty == split.isEmpty else { return "one reader says that it is empty" }
        // Of more problems than there is room for, each reader keeps others.
        guard problems.omitted == 0 else { return nil }
        let nameless = problems.list.contains { $0.severity == .rejected && $0.id == nil }
        guard nameless == (splitProblems.rejected > 0) else { return "one reader rejects what has no id" }
        let places = Set(problems.list.map(place))
        if let other = splitProblems.list.first(where: { !places.contains(place($0)) }) {
            return "\(other), the other reader says \(problems.list)"
        }
        return rebuilt(split, document, problems)
    }

    private static func place(_ problem: RouteProblem) -> String {
        "\(problem.severity) \(problem.object) \(problem.field ?? "-") \(problem.origin as Any): \(problem.problem)"
    }

    private static func rebuilt(
        _ update: StateUpdate, _ document: StateDocument, _ problems: RouteProblems
    ) -> String? {
        guard let text = export(Puts(update)) else { return "the export refuses an object" }
        let (again, found) = text.withUnsafeBufferPointer { StateDocument.parse($0, seed: seed) }
        guard let again else { return "what was put is no document: \(found.list)" }
        guard objects(again) == objects(document) else { return "\(objects(again)), not \(objects(document))" }
        guard told(found) == told(problems) else { return "\(told(found)), not \(told(problems))" }
        let (one, other) = (RoutingState(seed: seed), RoutingState(seed: seed))
        let (report, otherReport) = (one.apply(document), other.apply(again))
        guard told(report.problems) == told(otherReport.problems) || report.problems.omitted > 0 else {
            return "\(told(report.problems)), not \(told(otherReport.problems))"
        }
        let served = { (state: RoutingState) in Set(state.snapshot.listing().map { "\($0)" }) }
        return served(one) == served(other) ? nil : "\(served(one)), not \(served(other))"
    }

    /// What a change puts is judged as the same in a document: it can be taken apart and put together.
    private static func changed(_ update: StateUpdate) -> String? {
        guard let text = export(Puts(update)) else { return "the export refuses an object" }
        let (document, problems) = text.withUnsafeBufferPointer { StateDocument.parse($0, seed: seed) }
        return document == nil ? "what a change puts is no document: \(problems.list)" : nil
    }

    /// Without places, which move with the objects. One with several ids stands under each.
    private static func told(_ problems: RouteProblems) -> Set<String> {
        Set(
            problems.list.filter { $0.object != .document && $0.id != nil }.map {
                "\($0.severity) \($0.object) \($0.id ?? "-") \($0.field ?? "-"): \($0.problem); \($0.remedy)"
            })
    }

    private static func objects(_ document: StateDocument) -> [String] {
        let envs = document.envs.map {
            "env \(document.symbol($0.env)) \(document.string($0.org)) \(document.string($0.app)) \($0.ipv4 as Any)"
        }
        let instances = document.instances.map {
            "instance \(document.string($0.id)) \(document.symbol($0.env)) \(document.symbol($0.processType)) "
                + "\($0.address) \(document.string($0.node)) \($0.status) \($0.drainGraceSeconds) \($0.weight) "
                + "\($0.maxConnections) \($0.priority) \($0.ipv4 as Any) \(document.string($0.interface))"
        }
        let routes = document.routes.map {
            "route \(document.string($0.id)) \(document.hostname($0) ?? "-") \(document.symbol($0.env)) "
                + "\(document.symbol($0.processType)) \($0.backendPort) \($0.port) \($0.options.rawValue) \($0.maxConnections)"
        }
        let hostnames = document.hostnames.map {
            "hostname \(document.hostname($0)) \(document.symbol($0.env)) \($0.claimed as Any)"
        }
        return (envs + instances + routes + hostnames).sorted()
    }
}
