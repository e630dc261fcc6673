/// The kinds of objects that desired state has. The numbers are written to disk: they stay.
public enum StateKind: UInt8, CaseIterable, Sendable {
    case org = 1
    case env, instance, route, hostname

    /// The name of its list in a document, and in `put` and `delete` of a change.
    public var list: String { "\(listKey)" }
    /// The field that names an object among its kind.
    public var idField: String { "\(idKey)" }

    var listKey: StaticString {
        switch self {
        case .org: "orgs"
        case .env: "envs"
        case .instance: "instances"
        case .route: "routes"
        case .hostname: "hostnames"
        }
    }

    var idKey: StaticString {
        switch self {
        case .org: "org_id"
        case .env: "env_id"
        case .instance: "instance_id"
        case .route: "route_id"
        case .hostname: "hostname"
        }
    }

    var object: RouteProblem.Object {
        switch self {
        case .org: .org
        case .env: .env
        case .instance: .instance
        case .route: .route
        case .hostname: .hostname
        }
    }

    /// All lists, in the order of documents.
    static let lists = JSONKeys(allCases.map(\.listKey))
}

/// The words of `needs`: names of fields and lists. Who does not know one passes over it, as over any unknown name;
/// `needs` says that this would be wrong.
public enum StateWords {
    /// What this version reads and gives effect to.
    public static let known: Set<String> = Set(
        ([
            StateBuilder.orgKeys, StateBuilder.envKeys, StateBuilder.instanceKeys, StateBuilder.routeKeys,
            StateBuilder.hostnameKeys,
        ]
        .flatMap(\.names) + StateKind.lists.names).map { "\($0)" }
    )
}
