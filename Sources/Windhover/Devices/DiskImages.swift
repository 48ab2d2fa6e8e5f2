internal import Glibc
internal import Virtio
internal import VMCore

/// Opens what `--disk` names, once a run: a guest that resets keeps its disks, and their locks.
enum DiskImages {
    /// - Throws: `RunError`, one line that names the file, the reason and the way out.
    static func open(_ disk: DiskConfiguration) throws(RunError) -> any BlockImage {
        switch disk.format {
        case .raw:
            if !disk.isFormatNamed { try checkIsNoQCOW2(disk.path) }
            return try openRaw(disk.path, isReadOnly: disk.isReadOnly, isDirect: disk.isDirect)
        case .qcow2:
            guard !disk.isDirect else {
                throw RunError(
                    exitStatus: .badConfiguration,
                    description: "--disk: direct is for raw images: qcow2's tables lie between the disk's bytes; leave one of them out")
            }
            return try openQCOW2(disk.path, isReadOnly: disk.isReadOnly, backing: try backing(disk.backing))
        }
    }

    /// Sees that the files are there, before anything else is done for the run.
    static func check(_ disks: [DiskConfiguration]) throws(RunError) {
        for disk in disks {
            var paths = [disk.path]
            if case .file(let path, _) = disk.backing { paths.append(path) }
            var status = stat()
            for path in paths where unsafe stat(path, &status) != 0 && (errno == ENOENT || errno == ENOTDIR) {
                throw RunError(exitStatus: .noSuchFile, description: RawImageError.missing(path: path).description)
            }
        }
    }

    private static func backing(_ backing: DiskConfiguration.Backing?) throws(RunError) -> QCOW2Backing {
        switch backing {
        case nil: return .unspecified
        case .absent?: return .absent
        case .file(let path, .raw)?: return .image(try openRaw(path, isReadOnly: true, isDirect: false))
        case .file(let path, .qcow2)?: return .image(try openQCOW2(path, isReadOnly: true, backing: .unspecified))
        }
    }

    /// A guest that writes qcow2's first bytes to a raw disk must not choose what its disk is the next time; but who has a qcow2
    /// image and forgot to say so would have its tables for a disk.
    private static func checkIsNoQCOW2(_ path: String) throws(RunError) {
        let descriptor = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        // What cannot be opened is reported by who opens it to use it.
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var magic: UInt32 = 0
        guard unsafe pread(descriptor, &magic, 4, 0) == 4, magic == UInt32(0x5146_49FB).bigEndian else { return }
        throw RunError(
            exitStatus: .badConfiguration,
            description: "the disk image '\(path)' begins as qcow2 does: say format=qcow2 if it is such an image, or format=raw "
                + "to have its bytes as they are")
    }

    private static func openRaw(_ path: String, isReadOnly: Bool, isDirect: Bool) throws(RunError) -> RawImage {
        do throws(RawImageError) {
            return try RawImage(path: path, options: RawImageOptions(isReadOnly: isReadOnly, isDirect: isDirect))
        } catch {
            let status: ExitStatus =
                switch error {
                case .missing: .noSuchFile
                case .notPermitted, .readOnlyFile: .notPermitted
                default: .badConfiguration
                }
            var text = error.description
            if case .readOnlyFile = error { text += ", or add ,readonly to --disk" }
            throw RunError(exitStatus: status, description: text)
        }
    }

    private static func openQCOW2(_ path: String, isReadOnly: Bool, backing: QCOW2Backing) throws(RunError) -> QCOW2Image {
        do throws(QCOW2Error) {
            return try QCOW2Image.open(path: path, readOnly: isReadOnly, backing: backing, inflater: DeflateInflater())
        } catch {
            var status = ExitStatus.badConfiguration
            if case .host(_, _, let code) = error { status = RunError.status(ofFile: code) }
            throw RunError(exitStatus: status, description: error.description)
        }
    }
}
