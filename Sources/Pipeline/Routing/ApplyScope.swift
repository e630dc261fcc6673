/// What a run decides about: all objects that a change can make a difference to. Everything else stays as it is, and is
/// not looked at. See ``ChangeClosure``.
struct ApplyScope {
    /// Routes of the last table, by their entries.
    var entries: [UInt32] = []
    /// Ids of desired routes.
    var routes: Set<String> = []
    var instances: Set<String> = []
    /// Envs that are put or deleted, by their symbols.
    var envs: Set<UInt32> = []
    var orgs: Set<String> = []
    /// Names whose entries of `hostnames` are looked at.
    var hostnames: Set<NameKey> = []
    /// Routes by name that stay at a port which raw routes ask for, and are in their way (R8).
    struct Named {
        var envs = EnvMark.none
        /// One of them, for messages.
        var sample: (env: UInt32, entry: UInt32)?
    }
    var namedElsewhere: [UInt16: Named] = [:]
    /// Dedicated addresses are assigned anew: all envs that wish for one are in the document (R9).
    var assignsAddresses = false
    /// This node's instances may be others, or have other owners (R19).
    var assignsSources = false
}
