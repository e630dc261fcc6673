/// What a store asks of a file system. Tests put one in its place that fails, tears and forgets at every step.
///
/// Every call returns at least 0, or a negated errno. Threading: the control thread and one that compacts.
package protocol Disk: AnyObject, Sendable {
    func status(_ path: String, _ status: inout DiskStatus) -> Int32
    /// Of an open file.
    func status(of file: Int32, _ status: inout DiskStatus) -> Int32
    func setMode(_ path: String, _ mode: UInt32) -> Int32
    func makeDirectory(_ path: String) -> Int32
    /// For its lock alone.
    func openDirectory(_ path: String) -> Int32
    func names(in directory: String, _ names: inout [String]) -> Int32
    func syncDirectory(_ path: String) -> Int32
    /// Bytes that may still be written there.
    func freeBytes(_ path: String) -> Int

    func open(_ path: String, _ mode: DiskOpening) -> Int32
    func close(_ file: Int32)
    /// Fails with EWOULDBLOCK if another has it; ends with the file.
    func lock(_ file: Int32) -> Int32
    func read(_ file: Int32, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int
    /// All of them or an error, with part of them written perhaps.
    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32
    func resize(_ file: Int32, to size: Int) -> Int32
    func allocate(_ file: Int32, from offset: Int, count: Int) -> Int32
    func sync(_ file: Int32) -> Int32
    /// All of it, in memory. `size` is not 0.
    func map(_ file: Int32, size: Int, _ memory: inout UnsafeRawPointer?) -> Int32
    func unmap(_ memory: UnsafeRawPointer, size: Int)
    /// A part of it could not be read since, and reads as zeros: it was cut by somebody, or the disk fails.
    func hasLost(_ memory: UnsafeRawPointer) -> Bool

    func rename(_ path: String, to other: String) -> Int32
    func remove(_ path: String) -> Int32
}

package enum DiskOpening: Int32, Sendable {
    case read
    case write
    /// Makes it if there is none.
    case make
    /// The same, and empties it.
    case empty
}

package struct DiskStatus: Sendable {
    package enum Kind: Sendable { case file, directory, other }

    /// Which file it is.
    package struct Identity: Equatable, Sendable {
        package var device: UInt64 = 0
        package var inode: UInt64 = 0
        package init() {}
    }

    package var kind = Kind.other
    package var identity = Identity()
    /// When its bytes were written last, in nanoseconds since 1970.
    package var modified: Int64 = 0
    package var size = 0
    package var mode: UInt32 = 0
    package var isOurs = false
    package var links: UInt32 = 0
    package init() {}
}
