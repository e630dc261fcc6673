import Pipeline

/// Resolving env names: an env is org, app and env together, in every document (R5).
extension ApplyRun {
    /// The owner of a `route` block is the env of the document that has the same path, if there is one.
    static func joined(_ parts: [Part], _ state: RoutingState) -> [Part] {
        let document = parts.first { $0.source == .state }?.document
        var documented: Set<EnvName> = []
        return parts.map { part in
            guard part.source == .config, !part.document.envs.isEmpty else { return part }
            if documented.isEmpty, let document { documented = Set(document.envs.map(document.envName)) }
            var part = part
            for object in part.document.envs {
                let name = part.document.envName(object)
                if documented.contains(name) || state.env(named: name) != nil, let env = state.symbols.find(name.env) {
                    part.rename(object.env, env)
                }
            }
            return part
        }
    }

    /// The env that an entry's `env_id` names: by id in the document, or by path (`acme/shop/prod`). Two if both match,
    /// which is ambiguous.
    func entryOwners(_ env: UInt32) -> [UInt32] {
        guard env != RouteEntry.none, let name = EnvName(path: state.symbols.string(env)) else { return [env] }
        let byPath = [state.env(named: name), state.configEnv(name)].compactMap { $0 }
            .first { (state.envs[$0]?.sources ?? 0) != 0 }
        let isThere = (state.envs[env]?.sources ?? 0) != 0 || unclearEnvs.contains(env)
        guard let byPath, byPath != env else { return [env] }
        return isThere ? [env, byPath] : [byPath]
    }
}

extension StateDocument {
    fileprivate func envName(_ object: EnvObject) -> EnvName {
        EnvName(org: string(object.org), app: string(object.app), env: string(object.name))
    }
}

extension RoutingState {
    /// An env with this `env_id` that is known, of this org and app.
    fileprivate func env(named name: EnvName) -> UInt32? {
        guard let env = symbols.find(name.env), envs[env]?.identity == name else { return nil }
        return env
    }

    /// The owner of `route` blocks of this name, where no document has it: see ``StateDocument/configSymbol(_:)``.
    fileprivate func configEnv(_ name: EnvName) -> UInt32? { symbols.find(StateDocument.configSymbol(name)) }
}

extension SymbolTable {
    fileprivate func find(_ name: String) -> UInt32? {
        var name = name
        return name.withUTF8 { find($0) }
    }
}
