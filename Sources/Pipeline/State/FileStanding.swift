import Glibc

/// Whether a file in a store's directory may be used: by what it is, and by who may have written it.
///
/// In a directory that nobody else may write to, each name was made by this user or by root. A mode that is too open is
/// then a slip (a `cp`, a restored backup), as long as nobody could reach the file by it.
enum FileStanding: Equatable {
    case own
    /// Nobody else can have written it; its mode is to be put right.
    case loose(mode: UInt32)
    /// It is not the node's, or others may have written it.
    case strange(why: String)

    init(_ status: DiskStatus, in exposure: StateExposure) {
        let mode = "its mode is 0\(String(status.mode, radix: 8))"
        if status.kind != .file {
            self = .strange(why: "it is no regular file")
        } else if !status.isOurs {
            self = .strange(why: "it belongs to another user")
        } else if status.mode & 0o022 != 0, exposure.isReachable || status.links > 1 {
            self = .strange(why: "others may have written to it: \(mode)")
        } else {
            self = status.mode == StatePlace.fileMode ? .own : .loose(mode: status.mode)
        }
    }
}

extension StateExposure {
    /// Others may use what is in it, by its own mode.
    fileprivate var isReachable: Bool {
        switch self {
        case .none: false
        case .seen(let mode): mode & 0o011 != 0
        case .written: true
        }
    }

    fileprivate var isWritten: Bool {
        if case .written = self { true } else { false }
    }
}

extension StatePlace {
    static let fileMode: UInt32 = 0o600

    /// Looks whose a file is, and puts its mode right.
    /// - Returns: why it must not be used; nil: it may, or there is none.
    /// - Throws: it is not to be used, and who may write to the directory may have put it there.
    func judge(
        _ name: String, _ exposure: StateExposure, _ notices: inout [StateNotice]
    ) throws(StateFault) -> String? {
        var status = DiskStatus()
        let failed = disk.status(path(name), &status)
        if failed == -ENOENT { return nil }
        guard failed >= 0 else { throw StateFault.of(path(name), "looking at it", failed) }
        switch FileStanding(status, in: exposure) {
        case .own: return nil
        case .strange(let why):
            if exposure.isWritten { throw .foreign(path: path(name), what: why) }
            return why
        case .loose(let mode):
            // Others may put another file in its place meanwhile, or do what they like anyway.
            if exposure.isWritten { return nil }
            let failed = disk.setMode(path(name), StatePlace.fileMode)
            guard failed >= 0 else { throw StateFault.of(path(name), "putting its mode right", failed) }
            notices.append(
                StateNotice(
                    "state_mode",
                    "\(path(name)): its mode was 0\(String(mode, radix: 8)), and is 0600 now; nobody else can have "
                        + "written to it, and it is used"))
            return nil
        }
    }

    /// The same of a file that holds nothing of the state: one that must not be used is set aside.
    func clear(_ name: String, _ exposure: StateExposure, _ notices: inout [StateNotice]) throws(StateFault) {
        guard let why = try judge(name, exposure, &notices) else { return }
        let aside = try freeName(name)
        let failed = disk.rename(path(name), to: path(aside))
        guard failed >= 0 else { throw StateFault.of(path(name), "setting it aside", failed) }
        notices.append(
            StateNotice("state_damaged", "\(path(name)): \(why); it is set aside as \(aside), and nothing is lost"))
    }
}
