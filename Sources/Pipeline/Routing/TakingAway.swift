import Pipeline

/// What of an update takes away from somebody and gives to nobody: instances that are not ready, envs and orgs that are
/// suspended. It may take effect before the update itself does (R29). Where the disk takes nothing, what is removed is
/// taken away as well: an instance is stopped, a route or an env withdrawn, so that nobody else gets what was its.
public struct TakingAway: Sendable {
    /// What each is, in place of ready; by id.
    private var instances: [[UInt8]: InstanceStatus] = [:]
    private var envs: Set<[UInt8]> = []
    private var orgs: Set<[UInt8]> = []
    private var stopped: Set<[UInt8]> = []
    private var withdrawnRoutes: Set<[UInt8]> = []
    private var withdrawnEnvs: Set<[UInt8]> = []

    /// Texts of objects, by kind and id.
    public typealias Texts = [StateKind: [[UInt8]: [UInt8]]]

    public init() {}

    public init(of update: StateUpdate, seed: HashSeed) {
        // Most objects take nothing away: that is found without judging the rest of them.
        var reader = JSONReader(Bytes(start: nil, count: 0), seed: seed)
        update.forEachPut { kind, id, text in
            reader.begin(text.assumingMemoryBound(to: UInt8.self))
            switch kind {
            case .instance:
                guard reader.find("status") != InstanceStatus.ready.name else { return }
                if let status = TakingAway.lost(text, seed) { instances[Array(id)] = status }
            case .env:
                guard reader.mentions("suspended") else { return }
                if TakingAway.isSuspended(env: text, seed) { envs.insert(Array(id)) }
            case .org:
                guard reader.mentions("suspended") else { return }
                if TakingAway.isSuspended(org: text, seed) { orgs.insert(Array(id)) }
            case .route, .hostname: break
            }
        }
    }

    /// With what it removes, of objects that it touches.
    public init(of update: StateUpdate, touching touched: TouchedObjects, seed: HashSeed) {
        for (kind, ids) in touched.ids {
            for id in ids { add(kind, id, update.text(kind, id), seed) }
        }
    }

    /// - Parameter text: nil: it is removed.
    private mutating func add(_ kind: StateKind, _ id: [UInt8], _ text: [UInt8]?, _ seed: HashSeed) {
        guard let text else {
            switch kind {
            case .instance: stopped.insert(id)
            case .route: withdrawnRoutes.insert(id)
            case .env: withdrawnEnvs.insert(id)
            // An org without an object is not suspended, and a name without an entry is free: that gives.
            case .org, .hostname: break
            }
            return
        }
        text.withUnsafeBytes { text in
            switch kind {
            case .instance: if let status = TakingAway.lost(text, seed) { instances[id] = status }
            case .env:
                if TakingAway.isSuspended(env: text, seed) { envs.insert(id) }
                if TakingAway.isWithdrawn(.env, text, seed) ?? false { withdrawnEnvs.insert(id) }
            case .org: if TakingAway.isSuspended(org: text, seed) { orgs.insert(id) }
            case .route: if TakingAway.isWithdrawn(.route, text, seed) ?? false { withdrawnRoutes.insert(id) }
            case .hostname: break
            }
        }
    }

    public var isEmpty: Bool {
        instances.isEmpty && envs.isEmpty && orgs.isEmpty && stopped.isEmpty && withdrawnRoutes.isEmpty
            && withdrawnEnvs.isEmpty
    }

    /// What a later update says of the same object counts.
    public mutating func add(_ later: TakingAway) {
        instances.merge(later.instances) { $1 }
        envs.formUnion(later.envs)
        orgs.formUnion(later.orgs)
    }

    // MARK: What it changes

    /// Objects as they are to be: with nothing else changed in them than what is taken away. Those that are so already
    /// are left out.
    /// - Parameter text: an object as it is; nil: there is none.
    public func texts(over text: (StateKind, [UInt8]) -> [UInt8]?, seed: HashSeed) -> Texts {
        var texts: Texts = [:]
        for (id, status) in instances {
            guard let before = text(.instance, id), let after = before.withUnsafeBytes({ taken($0, status, seed) })
            else { continue }
            texts[.instance, default: [:]][id] = after
        }
        for id in envs {
            guard let before = text(.env, id), let after = before.withUnsafeBytes({ suspended(env: $0, seed) })
            else { continue }
            texts[.env, default: [:]][id] = after
        }
        for id in orgs {
            // Its envs may be there without it.
            if text(.org, id).map({ $0.withUnsafeBytes { TakingAway.isSuspended(org: $0, seed) } }) ?? false {
                continue
            }
            texts[.org, default: [:]][id] = ObjectText.org(String(decoding: id, as: UTF8.self), isSuspended: true)
        }
        addRemoved(&texts, over: text, seed)
        return texts
    }

    private func addRemoved(
        _ texts: inout Texts, over text: (StateKind, [UInt8]) -> [UInt8]?, _ seed: HashSeed
    ) {
        for id in stopped {
            guard let after = text(.instance, id)?.withUnsafeBytes({ TakingAway.stopped($0, seed) }) else { continue }
            texts[.instance, default: [:]][id] = after
        }
        for (kind, ids) in [(StateKind.route, withdrawnRoutes), (.env, withdrawnEnvs)] {
            for id in ids {
                // One that is suspended by this as well stays so.
                guard let before = texts[kind]?[id] ?? text(kind, id),
                    let after = before.withUnsafeBytes({ TakingAway.withdrawn(kind, $0, seed) })
                else { continue }
                texts[kind, default: [:]][id] = after
            }
        }
    }

    /// Nil: it has ended already, or can't be read.
    private static func stopped(_ text: UnsafeRawBufferPointer, _ seed: HashSeed) -> [UInt8]? {
        guard let document = StateDocument.one(.instance, text, seed: seed), document.instances.count == 1,
            document.instances[0].status.hasAddress
        else { return nil }
        return ObjectText.setting("status", to: "\"\(InstanceStatus.stopped.name)\"", in: text, seed: seed)
    }

    private static func withdrawn(_ kind: StateKind, _ text: UnsafeRawBufferPointer, _ seed: HashSeed) -> [UInt8]? {
        guard isWithdrawn(kind, text, seed) == false else { return nil }
        return ObjectText.setting("withdrawn", to: "true", in: text, seed: seed)
    }

    /// An earlier update, as it may be applied once this has taken effect: it gives nothing of it back.
    public func amending(_ update: StateUpdate, seed: HashSeed) -> StateUpdate {
        guard !isEmpty else { return update }
        var texts: Texts = [:]
        update.forEachPut { kind, id, text in
            let id = Array(id)
            let after: [UInt8]? =
                switch kind {
                case .instance: instances[id].flatMap { taken(text, $0, seed) }
                case .env: envs.contains(id) ? suspended(env: text, seed) : nil
                case .org, .route, .hostname: nil
                }
            if let after { texts[kind, default: [:]][id] = after }
        }
        for id in orgs {
            texts[.org, default: [:]][id] = ObjectText.org(String(decoding: id, as: UTF8.self), isSuspended: true)
        }
        return update.amended(texts)
    }

    private func taken(_ text: UnsafeRawBufferPointer, _ status: InstanceStatus, _ seed: HashSeed) -> [UInt8]? {
        guard let document = StateDocument.one(.instance, text, seed: seed), document.instances.count == 1,
            document.instances[0].status == .ready
        else { return nil }
        return ObjectText.setting("status", to: "\"\(status.name)\"", in: text, seed: seed)
    }

    private func suspended(env text: UnsafeRawBufferPointer, _ seed: HashSeed) -> [UInt8]? {
        guard let document = StateDocument.one(.env, text, seed: seed), document.envs.count == 1,
            !document.envs[0].suspended
        else { return nil }
        return ObjectText.setting("suspended", to: "true", in: text, seed: seed)
    }

    // MARK: What an object says

    /// Of several objects with one id none counts: they are quarantined.
    private static func lost(_ text: UnsafeRawBufferPointer, _ seed: HashSeed) -> InstanceStatus? {
        guard let document = StateDocument.one(.instance, text, seed: seed), document.instances.count == 1 else {
            return nil
        }
        let status = document.instances[0].status
        return status == .ready ? nil : status
    }

    private static func isSuspended(env text: UnsafeRawBufferPointer, _ seed: HashSeed) -> Bool {
        guard let document = StateDocument.one(.env, text, seed: seed) else { return false }
        return document.envs.count == 1 && document.envs[0].suspended
    }

    /// Nil: it can't be read.
    private static func isWithdrawn(_ kind: StateKind, _ text: UnsafeRawBufferPointer, _ seed: HashSeed) -> Bool? {
        guard let document = StateDocument.one(kind, text, seed: seed) else { return nil }
        if kind == .env { return document.envs.count == 1 ? document.envs[0].withdrawn : nil }
        return document.routes.count == 1 ? document.routes[0].options.contains(.withdrawn) : nil
    }

    private static func isSuspended(org text: UnsafeRawBufferPointer, _ seed: HashSeed) -> Bool {
        guard let document = StateDocument.one(.org, text, seed: seed) else { return false }
        return document.orgs.count == 1 && document.orgs[0].suspended
    }
}

extension JSONReader {
    /// The object that comes next has the name; true as well of what is no object.
    fileprivate mutating func mentions(_ key: StaticString) -> Bool {
        guard let found = try? values(key) else { return true }
        return !found.values.isEmpty
    }
}

extension ObjectText {
    /// An object's text with another value under a name; nil: it is no object, or has the name more than once.
    static func setting(
        _ key: StaticString, to value: String, in text: UnsafeRawBufferPointer, seed: HashSeed
    ) -> [UInt8]? {
        var reader = JSONReader(text.assumingMemoryBound(to: UInt8.self), seed: seed)
        guard let found = try? reader.values(key), (try? reader.end()) != nil, found.values.count < 2 else {
            return nil
        }
        if let place = found.values.first {
            return Array(text[..<place.lowerBound]) + Array(value.utf8) + Array(text[place.upperBound...])
        }
        let member = "\"\(key)\":\(value)" + (found.isEmpty ? "" : ",")
        return Array(text[..<found.first]) + Array(member.utf8) + Array(text[found.first...])
    }
}

extension StateUpdate {
    /// A change that puts these objects, and says nothing else; nil: it can't be read, which is a mistake of the caller's.
    public static func putting(_ texts: TakingAway.Texts, actor: String, request: String, seed: HashSeed)
        -> StateUpdate?
    {
        var text = "{\"format\":\"\(StateHeader.changeFormat)\""
        if !actor.isEmpty { text += ",\"actor\":\(StateExport.quoted(actor))" }
        if !request.isEmpty { text += ",\"request\":\(StateExport.quoted(request))" }
        var bytes = Array((text + ",\"put\":{").utf8)
        for (index, (kind, objects)) in texts.sorted(by: { $0.key.rawValue < $1.key.rawValue }).enumerated() {
            bytes += Array("\(index == 0 ? "" : ",")\"\(kind.list)\":[".utf8)
            let ordered = objects.sorted { $0.key.lexicographicallyPrecedes($1.key) }
            bytes += Array(ordered.map(\.value).joined(separator: [UInt8(ascii: ",")]))
            bytes += Array("]".utf8)
        }
        return read(copying: bytes + Array("}}".utf8), as: .change, seed: seed).update
    }
}
