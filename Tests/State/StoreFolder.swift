import Foundation
import Glibc
import TestSupport

/// A directory of the test's, gone with it.
final class StoreFolder {
    let path: String
    init(megabytes: Int? = nil) throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("state-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        if let megabytes, mount("tmpfs", path, "tmpfs", 0, "size=\(megabytes)m") != 0 {
            throw Failure(call: "mount a tmpfs")
        }
    }
    deinit {
        umount2(path, Int32(MNT_DETACH))
        try? FileManager.default.removeItem(atPath: path)
    }
    var store: String { path + "/store" }
}
