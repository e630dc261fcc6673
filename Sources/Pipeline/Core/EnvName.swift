/// An env's full name: org, app and env id. Envs of different orgs and apps may have the same id.
public struct EnvName: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var org: String
    public var app: String
    public var env: String

    public init(org: String, app: String, env: String) {
        self.org = org
        self.app = app
        self.env = env
    }

    /// `org/app/env`, unique to the env. A `/` within an id is written `%2F`, a `%` `%25`. Empty if unknown.
    public var path: String {
        guard !isUnknown else { return "" }
        var bytes: [UInt8] = []
        EnvName.withUTF8(org, app, env) { org, app, env in
            EnvName.forEachByte(org: org, app: app, env: env) { bytes.append($0) }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Parses ``path``; nil: it does not have three parts.
    public init?(path: some StringProtocol) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false).map { part in
            part.split(separator: "%2F", omittingEmptySubsequences: false).joined(separator: "/")
                .split(separator: "%25", omittingEmptySubsequences: false).joined(separator: "%")
        }
        guard parts.count == 3 else { return nil }
        self.init(org: parts[0], app: parts[1], env: parts[2])
    }

    public var description: String { path }

    public var isUnknown: Bool { org.isEmpty && app.isEmpty && env.isEmpty }

    public static func < (a: EnvName, b: EnvName) -> Bool { (a.org, a.app, a.env) < (b.org, b.app, b.env) }

    /// The bytes of ``path`` from ids stored elsewhere, without allocation.
    public static func forEachByte(
        org: UnsafeBufferPointer<UInt8>, app: UnsafeBufferPointer<UInt8>, env: UnsafeBufferPointer<UInt8>,
        _ body: (UInt8) -> Void
    ) {
        eachByte(org, body)
        body(UInt8(ascii: "/"))
        eachByte(app, body)
        body(UInt8(ascii: "/"))
        eachByte(env, body)
    }

    private static func eachByte(_ id: UnsafeBufferPointer<UInt8>, _ body: (UInt8) -> Void) {
        for byte in id {
            switch byte {
            case UInt8(ascii: "/"): escape(UInt8(ascii: "2"), UInt8(ascii: "F"), body)
            case UInt8(ascii: "%"): escape(UInt8(ascii: "2"), UInt8(ascii: "5"), body)
            default: body(byte)
            }
        }
    }

    private static func escape(_ high: UInt8, _ low: UInt8, _ body: (UInt8) -> Void) {
        body(UInt8(ascii: "%"))
        body(high)
        body(low)
    }

    private static func withUTF8(
        _ one: String, _ two: String, _ three: String,
        _ body: (UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>) -> Void
    ) {
        var (one, two, three) = (one, two, three)
        one.withUTF8 { one in two.withUTF8 { two in three.withUTF8 { body(one, two, $0) } } }
    }
}

// For the control side: each makes three strings.

extension RouteOwner {
    public var name: EnvName { EnvName(org: org.string, app: app.string, env: env.string) }
}

extension InstanceIdentity {
    /// Whose instance it is.
    public var owner: EnvName { EnvName(org: org.string, app: app.string, env: env.string) }
}
