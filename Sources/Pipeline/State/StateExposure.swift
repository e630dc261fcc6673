/// What users other than the node's may do in a store's directory.
///
/// The files in it are this user's own, whoever may use the directory: nobody else can have written what is in them, so
/// they are read. Who may write there could take one away, or put an older one of ours back, from now on: nothing new is
/// kept until that is over, and so nothing new takes effect.
enum StateExposure: Equatable {
    case none
    /// They may look at names.
    case seen(UInt32)
    case written(UInt32)

    init(_ mode: UInt32) {
        // With the sticky bit as well: names that are to come may be taken.
        self = mode & 0o022 != 0 ? .written(mode) : mode & 0o077 != 0 ? .seen(mode) : .none
    }

    func notice(_ directory: String) -> StateNotice? {
        switch self {
        case .none: nil
        case .seen(let mode):
            StateNotice(
                "state_seen",
                "\(directory): others may look into it (its mode is 0\(String(mode, radix: 8))); what is kept there is "
                    + "used; `chmod 0700 \(directory)`")
        case .written: fault(directory).map { StateNotice("state_exposed", $0.message) }
        }
    }

    func fault(_ directory: String) -> StateFault? {
        guard case .written(let mode) = self else { return nil }
        return .exposed(path: directory, mode: mode)
    }
}

extension StateStore {
    /// Why nothing new is kept for now, though what there is is used; nil: it is.
    public var exposure: StateFault? { isExposed ? place.exposure.fault(directory) : nil }

    /// The directory's mode may have been put right since.
    func refuseExposed() throws(StateFault) {
        guard isExposed else { return }
        if let fault = exposure { throw fault }
        isExposed = false
    }
}
