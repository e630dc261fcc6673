import CLinux
import Glibc

/// What a name in a directory was when it was looked at.
package struct Sight: Equatable, Sendable {
    package enum Kind: Sendable { case file, folder, link, other }

    package let kind: Kind
    package let device: UInt64
    package let inode: UInt64
    package let size: Int64
    /// Nanoseconds since 1970, of its content and of all that is known of it.
    package let modified: Int64
    package let changed: Int64

    init(_ look: cl_path_look) {
        kind =
            switch Int(look.kind) {
            case CL_LOOK_FILE: .file
            case CL_LOOK_FOLDER: .folder
            case CL_LOOK_LINK: .link
            default: .other
            }
        (device, inode, size) = (look.device, look.inode, look.size)
        (modified, changed) = (look.modified, look.changed)
    }

    /// The same object, whatever is in it.
    func isSame(as other: Sight) -> Bool { kind == other.kind && device == other.device && inode == other.inode }

    /// Nil with an errno: there is nothing, or it may not be looked at.
    package static func of(_ path: String) -> (sight: Sight?, error: Int32) {
        var look = cl_path_look()
        let failed = cl_path_look(path, &look)
        return failed == 0 ? (Sight(look), 0) : (nil, -failed)
    }

    static func of(file: Int32) -> Sight? {
        var look = cl_path_look()
        return cl_file_look(file, &look) == 0 ? Sight(look) : nil
    }
}

/// The way from the root to what a path leads to, through every symbolic link: each directory on it may be moved, each
/// link be set anew, and the path then leads elsewhere.
package struct PathTrail: Equatable, Sendable {
    /// One name in one directory.
    package struct Step: Equatable, Sendable {
        /// Without links in it.
        package let folder: String
        package let name: String
        /// Nil: there is nothing by this name, or it may not be looked at.
        package let sight: Sight?

        package var path: String { folder == "/" ? "/\(name)" : "\(folder)/\(name)" }
    }

    package private(set) var steps: [Step] = []
    /// Why it leads to nothing; 0: it does not.
    package private(set) var error: Int32 = 0

    /// As many links as the kernel follows, and more names than a path may have.
    private static let mostLinks = 40
    private static let mostSteps = 4096

    /// - Parameter path: a relative one begins at the process's directory.
    package init(_ path: String) { error = walk(path) }

    private mutating func walk(_ path: String) -> Int32 {
        var folder = "/"
        var rest = PathTrail.names(path)
        if !path.hasPrefix("/") { rest = PathTrail.names(PathTrail.here) + rest }
        var links = 0
        rest.reverse()
        while let name = rest.popLast() {
            if name == ".." {
                folder = String(folder[..<(folder.lastIndex(of: "/") ?? folder.startIndex)])
                if folder.isEmpty { folder = "/" }
                continue
            }
            guard steps.count < PathTrail.mostSteps else { return ENAMETOOLONG }
            let path = folder == "/" ? "/\(name)" : "\(folder)/\(name)"
            let (sight, failed) = Sight.of(path)
            steps.append(Step(folder: folder, name: name, sight: sight))
            guard let sight else { return failed }
            switch sight.kind {
            case .link:
                links += 1
                guard links <= PathTrail.mostLinks else { return ELOOP }
                guard let target = PathTrail.target(path) else { return ENOENT }
                if target.hasPrefix("/") { folder = "/" }
                rest += PathTrail.names(target).reversed()
            case .folder: folder = path
            case .file, .other: if !rest.isEmpty { return ENOTDIR }
            }
        }
        return 0
    }

    /// What is at its end; nil: nothing.
    package var end: Sight? { error == 0 ? steps.last?.sight : nil }

    /// It leads through the same objects.
    func isSame(as other: PathTrail) -> Bool {
        error == other.error
            && steps.elementsEqual(other.steps) { one, two in
                guard one.folder == two.folder, one.name == two.name else { return false }
                guard let first = one.sight, let second = two.sight else { return one.sight == two.sight }
                // A link that is made anew in the same inode leads elsewhere, but then so do the steps behind it.
                return first.isSame(as: second)
            }
    }

    private static func names(_ path: String) -> [String] {
        path.split(separator: "/").filter { $0 != "." }.map(String.init)
    }

    private static var here: String {
        guard let path = getcwd(nil, 0) else { return "/" }
        defer { free(path) }
        return String(cString: path)
    }

    private static func target(_ path: String) -> String? {
        var room = [CChar](repeating: 0, count: 4097)
        let count = cl_path_link(path, &room, 4096)
        guard count > 0 else { return nil }
        return String(decoding: room[..<Int(count)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
