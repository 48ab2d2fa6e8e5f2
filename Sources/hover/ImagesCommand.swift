import ArgumentParser
import Windhover

struct ImagesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "images",
        abstract: "Shows, fetches and removes cached images, and makes disks.",
        discussion: """
            Images and disks are kept under $XDG_CACHE_HOME/windhover, or ~/.cache/windhover, and are used offline from then on.
            """,
        subcommands: [List.self, Fetch.self, MakeDiskCommand.self, Prune.self, Path.self],
        defaultSubcommand: List.self)

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "Lists what is cached, from where, and how large it is.")

        func run() throws {
            let store = try ImageStore()
            try StandardOutput.write(
                ImagesCommand.table(
                    store.list(), damaged: store.damaged(), disks: store.disks(), total: store.size, directory: store.cacheDirectory))
        }
    }

    struct Fetch: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "fetch", abstract: "Fetches an image, or checks the one that is there.",
            discussion: "Comes from this host's package sources, verified, as any user.")

        @Argument(help: "The image: linux.")
        var name: String

        @Flag(help: "Fetch the newest one even where one is there.")
        var update = false

        func run() throws {
            guard ImageStore.names.contains(name) else { throw ImageError.unknown(name) }
            let store = try ImageStore()
            var anew = update
            if !update, store.image(name) != nil {
                let damaged = try store.verify(name)
                if damaged.isEmpty {
                    try StandardOutput.write("\(name) is here already, and every file is as it was stored\n")
                    return
                }
                Hover.complain("\(name) is damaged (\(damaged.joined(separator: ", "))) and is fetched anew")
                anew = true
            }
            let image = try fetch(name, into: store, update: anew)
            try StandardOutput.write("\(image.name) \(image.release) (\(image.version)), \(ByteCount.text(image.size))\n")
        }
    }

    struct Prune: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "prune", abstract: "Removes every cached image; with --disks the disks that were made, too.")

        @Flag(help: "Remove the disks as well, with whatever guests have written to them.")
        var disks = false

        func run() throws {
            let store = try ImageStore()
            var freed = try store.prune()
            if disks { freed += try store.pruneDisks() }
            let kept = store.disks()
            let size = ByteCount.text(kept.reduce(0) { $0 + $1.allocated })
            try StandardOutput.write(
                "freed \(ByteCount.text(freed))\n"
                    + (kept.isEmpty ? "" : "kept \(kept.map(\.name).joined(separator: ", ")) (\(size)); --disks removes that, too\n"))
        }
    }

    struct Path: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "path", abstract: "Prints where an image's or a disk's files are, or where they are kept.")

        @Argument(help: "The image or disk; without one, the cache's directory.")
        var name: String?

        func run() throws {
            let store = try ImageStore()
            guard let name else {
                try StandardOutput.write(store.cacheDirectory + "\n")
                return
            }
            if ImageStore.diskNames.contains(name) {
                guard let disk = store.disk(name) else { throw NotMade(name: name) }
                try StandardOutput.write(disk.path + "\n")
                return
            }
            guard ImageStore.names.contains(name) else { throw ImageError.unknown(name) }
            guard let files = store.locate(name) else { throw NotFetched(name: name) }
            let paths = [files.kernel, files.initrd, files.preparedKernel, files.modules].compactMap(\.self)
            try StandardOutput.write(paths.joined(separator: "\n") + "\n")
        }
    }

    private struct NotMade: ReportableError {
        let name: String
        var exitStatus: ExitStatus { .noSuchFile }
        var description: String { "\(name) is not made yet: hover images make \(name)" }
    }

    private struct NotFetched: ReportableError {
        let name: String
        var exitStatus: ExitStatus { .noSuchFile }
        var description: String { "\(name) is not fetched yet: hover images fetch \(name)" }
    }

    /// What `list` prints: columns, then the sum.
    static func table(
        _ images: [Image], damaged: [String] = [], disks: [Disk] = [], total: UInt64, directory: String
    ) -> String {
        guard !images.isEmpty || !damaged.isEmpty || !disks.isEmpty else {
            return """
                nothing is cached in \(directory)
                hover images fetch linux fetches Debian's kernel; hover images make debian makes a Debian system's disk

                """
        }
        let rows =
            [["NAME", "KIND", "SIZE", "FROM"]]
            + images.map { [$0.name, "kernel \($0.release)", ByteCount.text($0.size), $0.origin] }
            + damaged.map { [$0, "damaged", "-", "hover images fetch \($0) mends it"] }
            + disks.map { [$0.name, "disk of \(ByteCount.text($0.size))", ByteCount.text($0.allocated), $0.contents] }
        let widths = (0..<3).map { column in (rows.map { $0[column].count }.max() ?? 0) + 2 }
        var text = ""
        for row in rows {
            for (column, width) in widths.enumerated() {
                text += row[column] + String(repeating: " ", count: width - row[column].count)
            }
            text += row[3] + "\n"
        }
        return text + "\n\(ByteCount.text(total)) in \(directory)\n"
    }
}
