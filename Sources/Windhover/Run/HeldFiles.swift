internal import Glibc

/// A run's files, which stay the same for every life of the guest: whatever becomes of their names after the first, a guest that
/// resets starts from what it started from.
struct HeldFiles: ~Copyable {
    private var files: GuestFiles
    private var descriptors: [Int32] = []

    init(_ files: GuestFiles) { self.files = files }

    var kernel: String? { files.kernel }
    var preparedKernel: String? { files.preparedKernel }
    var initrd: String? { files.initrd }
    var modules: String? { files.modules }
    var isOurs: Bool { files.isOurs }

    /// Opens them, after the first life was made of them. One that cannot be opened is looked for by its name again.
    mutating func hold() {
        guard descriptors.isEmpty else { return }
        func held(_ path: String?) -> String? {
            guard let path else { return nil }
            let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
            guard descriptor >= 0 else { return path }
            descriptors.append(descriptor)
            return "/proc/self/fd/\(descriptor)"
        }
        files.kernel = held(files.kernel)
        files.preparedKernel = held(files.preparedKernel)
        files.initrd = held(files.initrd)
        files.modules = held(files.modules)
    }

    deinit { for descriptor in descriptors { close(descriptor) } }
}
