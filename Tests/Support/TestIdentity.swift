import Pipeline

/// Identities of instances, as a test owns them.
package enum TestIdentity {
    package static func make(
        number: UInt32, id: String, env: String, app: String, org: String, isSuspended: Bool = false
    ) -> UnsafeMutablePointer<InstanceIdentity> {
        let memory = UnsafeMutablePointer<InstanceIdentity>.allocate(capacity: 1)
        memory.initialize(
            to: InstanceIdentity(
                number: number, id: FrozenText(id), env: FrozenText(env), app: FrozenText(app), org: FrozenText(org),
                isSuspended: isSuspended))
        return memory
    }

    package static func free(_ identity: UnsafeMutablePointer<InstanceIdentity>) {
        identity.pointee.deallocate()
        identity.deinitialize(count: 1)
        identity.deallocate()
    }
}
