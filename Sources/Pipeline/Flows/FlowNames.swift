import Pipeline

/// An instance's ids on the platform; empty where unknown. For exported records.
public struct FlowNames: Hashable, Sendable {
    public var instance: String
    public var env: String
    public var app: String
    public var org: String
    public init(instance: String = "", env: String = "", app: String = "", org: String = "") {
        self.instance = instance
        self.env = env
        self.app = app
        self.org = org
    }
}

extension FlowNames {
    /// Whose instance it is.
    public var owner: EnvName { EnvName(org: org, app: app, env: env) }
}
