/// The numbers of an env and of its org, for the life of the process: what a suspension goes by (R30), whichever objects
/// stand for them in this table or that.
public struct TenantNumbers: Hashable, Sendable {
    public let env: UInt32
    public let org: UInt32

    public init(env: UInt32, org: UInt32) {
        self.env = env
        self.org = org
    }

    /// Of nobody that could be suspended.
    public static let unknown = TenantNumbers(env: .max, org: .max)
}
