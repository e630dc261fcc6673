import Glibc
import PipelineThreads

/// Why a store could not be opened or changed. What it held before, it holds still.
public enum StateFault: Error, Equatable, Sendable {
    /// Another process has the directory open; nil: it did not say which.
    case locked(path: String, by: Int32?)
    /// A file or directory that others could write or read, or that is none.
    case foreign(path: String, what: String)
    /// Written by a newer version. It is never set aside.
    case newer(path: String, version: UInt32)
    /// Others may write to the directory. What is in it is read, and nothing new is kept.
    case exposed(path: String, mode: UInt32)
    case readOnly(path: String)
    case full(path: String, error: Int32)
    /// Any other error of the file system.
    case failed(path: String, doing: String, error: Int32)
    case tooLarge(path: String, what: String)
    /// A whole replacement may or may not be on disk: nothing is changed any more until the store is opened again.
    case uncertain(path: String, error: Int32)
    /// Another directory is in its place, or none.
    case displaced(path: String)
    /// Its files were damaged under way, and could not be made whole: only a whole replacement is taken.
    /// - Parameter leaves: what an opening would find.
    case spoiled(path: String, what: String, leaves: String)
    /// A record that no store takes: the caller's mistake.
    case unfit(what: String)
    /// A group is being made durable: what comes behind it waits until that has ended.
    case busy(path: String)

    /// What failed, what still works, what to do.
    public var message: String { message("; nothing was changed") }

    /// The same, where something was.
    public var messageInPart: String { message("") }

    private func message(_ outcome: String) -> String {
        switch self {
        case .locked(let path, let pid):
            let who = pid.map { "process \($0)" } ?? "another process"
            return "\(path): \(who) has it open; nothing was read or changed; end that one, or give each a directory"
        case .foreign(let path, let what):
            return "\(path): \(what); nothing was read or changed; "
                + "make it this user's own (`chown`), directories 0700 and files 0600"
        case .newer(let path, let version):
            return "\(path): its format \(version) is newer than this program reads (\(StateFormat.version)); "
                + "nothing was changed; start the program that wrote it, or name another directory"
        case .exposed(let path, let mode):
            return "\(path): others may write to it (its mode is 0\(String(mode, radix: 8))): what is kept there is in "
                + "force, and nothing new is kept; `chmod 0700 \(path)`"
        case .readOnly(let path):
            return "\(path): the file system is read-only\(outcome); make it writable, or choose another place"
        case .full(let path, let error):
            return "\(path): no room (\(errorName(error)))\(outcome); make room on that file system"
        case .failed(let path, let doing, let error):
            return "\(path): \(doing): \(errorName(error)), \(errorText(error))\(outcome); check the disk"
        case .tooLarge(let path, let what): return "\(path): \(what)\(outcome)"
        case .uncertain(let path, let error):
            return "\(path): it is not known whether a replaced state is on disk: \(errorName(error)); "
                + "what is in force stays, changes are refused; check the disk and restart"
        case .displaced(let path):
            return "\(path): the directory was moved away, or another one is in its place; nothing was changed, and "
                + "changes are refused; put it back, or restart the node"
        case .spoiled(let path, let what, let leaves):
            return
                "\(path): \(what); what is in force stays, and only a whole document is taken, from which it is written "
                + "anew: push one (`pipelined apply`), or `pipelined reload` where routes come from a file; a restart "
                + "before that begins with \(leaves)"
        case .unfit(let what): return what
        case .busy(let path): return "\(path): a change is being made durable; nothing else was changed; try again"
        }
    }

    /// The disk takes nothing: what is in memory is right, and may be gone on with.
    public var leavesMemory: Bool {
        switch self {
        case .full, .readOnly, .failed, .exposed, .displaced, .uncertain, .tooLarge: true
        case .locked, .foreign, .newer, .spoiled, .unfit, .busy: false
        }
    }

    static func of(_ path: String, _ doing: String, _ failed: Int32) -> StateFault {
        let error = failed < 0 ? -failed : failed
        return switch error {
        case ENOSPC, EDQUOT: .full(path: path, error: error)
        case EROFS: .readOnly(path: path)
        case ELOOP: .foreign(path: path, what: "it is a symbolic link")
        default: .failed(path: path, doing: doing, error: error)
        }
    }
}

/// What a store did by itself, and an operator must know.
public struct StateNotice: Equatable, Sendable {
    /// The event of the log: `state_damaged`.
    public let event: String
    public let text: String
    /// Changes that were durable are gone.
    public let isLoss: Bool

    package init(_ event: String, _ text: String, isLoss: Bool = false) {
        self.event = event
        self.text = text
        self.isLoss = isLoss
    }
}
