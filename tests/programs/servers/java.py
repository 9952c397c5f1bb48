"""A Java program with the JDK's HTTP server: a thread pool under HotSpot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from journal import Journal
from program import Setup

# The value is in the file before its answer leaves.
_SERVER = """
import com.sun.net.httpserver.HttpServer;
import java.io.FileWriter;
import java.net.InetSocketAddress;
import java.util.UUID;
import java.util.concurrent.Executors;

public class Server {
    public static void main(String[] arguments) throws Exception {
        byte[] page = ("<p>" + "java ".repeat(500) + "</p>\\n").getBytes();
        FileWriter journal = new FileWriter("journal", true);
        int port = Integer.parseInt(arguments[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 100);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", exchange -> {
            synchronized (journal) {
                journal.write(exchange.getRequestURI() + " " + System.currentTimeMillis() + " "
                    + Math.random() + " " + UUID.randomUUID() + "\\n");
                journal.flush();
            }
            exchange.sendResponseHeaders(200, page.length);
            exchange.getResponseBody().write(page);
            exchange.close();
        });
        server.start();
    }
}
"""


class Java(Journal):
    page = b"<p>" + b"java " * 500 + b"</p>\n"
    name = "java"
    packages = ("javac:default-jdk-headless", "ab:apache2-utils")

    def configure(self, place: Path, port: int) -> Setup:
        (place / "Server.java").write_text(_SERVER)
        subprocess.run(["javac", "Server.java"], cwd=place, check=True, capture_output=True)
        java = shutil.which("java") or "/usr/bin/java"
        return Setup(argv=[java, "-cp", ".", "Server", str(port)])


PROGRAM = Java()
