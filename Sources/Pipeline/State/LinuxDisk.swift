import CLinux
import Glibc

package final class LinuxDisk: Disk {
    package init() {}

    package func status(_ path: String, _ status: inout DiskStatus) -> Int32 {
        var found = cl_file_status()
        let failed = cl_file_status(path, &found)
        LinuxDisk.take(found, &status)
        return failed
    }

    package func status(of file: Int32, _ status: inout DiskStatus) -> Int32 {
        var found = cl_file_status()
        let failed = cl_open_file_status(file, &found)
        LinuxDisk.take(found, &status)
        return failed
    }

    private static func take(_ found: cl_file_status, _ status: inout DiskStatus) {
        status.kind =
            found.kind == UInt32(CL_KIND_FILE)
            ? .file : found.kind == UInt32(CL_KIND_DIRECTORY) ? .directory : .other
        status.size = Int(clamping: found.size)
        status.mode = found.mode
        status.isOurs = found.owner == cl_user_id()
        status.links = found.links
        status.identity.device = found.device
        status.identity.inode = found.inode
        status.modified = found.modified
    }

    package func setMode(_ path: String, _ mode: UInt32) -> Int32 { cl_file_mode(path, Int32(mode)) }
    package func openDirectory(_ path: String) -> Int32 { cl_directory_open(path) }
    package func makeDirectory(_ path: String) -> Int32 { cl_directory_make(path, 0o700) }

    package func names(in directory: String, _ names: inout [String]) -> Int32 {
        withUnsafeMutablePointer(to: &names) { names in
            cl_directory_names(directory, names) { context, name in
                guard let context, let name else { return }
                context.assumingMemoryBound(to: [String].self).pointee.append(String(cString: name))
            }
        }
    }

    package func syncDirectory(_ path: String) -> Int32 { cl_directory_sync(path) }
    package func freeBytes(_ path: String) -> Int { Int(cl_free_bytes(path)) }

    package func open(_ path: String, _ mode: DiskOpening) -> Int32 { cl_file_open(path, mode.rawValue) }
    package func close(_ file: Int32) {
        // A child between fork and exec has the open file too, and would keep its lock.
        _ = cl_unlock_file(file)
        _ = cl_close(file)
    }
    package func lock(_ file: Int32) -> Int32 { cl_lock_file(file, 0, 0) }
    package func read(_ file: Int32, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        cl_file_read(file, buffer.baseAddress, buffer.count, Int64(offset))
    }
    package func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        cl_file_write(file, bytes.baseAddress, bytes.count, Int64(offset))
    }
    package func resize(_ file: Int32, to size: Int) -> Int32 { cl_file_resize(file, Int64(size)) }
    package func allocate(_ file: Int32, from offset: Int, count: Int) -> Int32 {
        cl_file_allocate(file, Int64(offset), Int64(count))
    }
    package func sync(_ file: Int32) -> Int32 { cl_file_sync(file) }
    package func map(_ file: Int32, size: Int, _ memory: inout UnsafeRawPointer?) -> Int32 {
        var error: Int32 = 0
        memory = cl_file_map(file, size, &error)
        return -error
    }
    package func unmap(_ memory: UnsafeRawPointer, size: Int) { cl_file_unmap(memory, size) }
    package func hasLost(_ memory: UnsafeRawPointer) -> Bool { cl_file_map_lost(memory) != 0 }

    package func rename(_ path: String, to other: String) -> Int32 { cl_rename_path(path, other) }
    package func remove(_ path: String) -> Int32 { cl_remove_path(path) }
}
