"""aiortc and FFmpeg, two implementations of WebRTC that are not ours, at the doors.

Usage: doors.py publish|watch|ffmpeg URL. The token comes in DOOR_TOKEN. Speaks
JSON lines: `ready`, then one report a second, until standard input closes; then
it deletes its session and says `deleted` with the status.
"""

import asyncio
import fractions
import json
import math
import os
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urljoin

TOKEN = os.environ["DOOR_TOKEN"]
RATE = 48_000


def say(**report):
    print(json.dumps(report), flush=True)


def call(method, url, body=None, kind=None):
    """One HTTP request; answers with status, headers and text."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    if kind:
        headers["Content-Type"] = kind
    data = body.encode() if body is not None else None
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def picture(number):
    """A grey picture with a white square that moves."""
    import av

    frame = av.VideoFrame(640, 360, "yuv420p")
    for plane, value in zip(frame.planes, (60, 128, 128)):
        data = bytearray([value]) * plane.buffer_size
        if value == 60:
            left = number * 8 % 500
            for row in range(100, 200):
                start = row * plane.line_size + left
                data[start : start + 100] = b"\xeb" * 100
        plane.update(bytes(data))
    return frame


def tone(start, samples):
    """A tone of 440 Hz."""
    import array

    import av

    wave = array.array(
        "h", (int(8000 * math.sin(2 * math.pi * 440 * (start + i) / RATE)) for i in range(samples))
    )
    frame = av.AudioFrame(format="s16", layout="mono", samples=samples)
    frame.planes[0].update(wave.tobytes())
    frame.sample_rate = RATE
    return frame


async def negotiate(peer, url):
    """Offers with all candidates, takes the answer; gives the session's URL."""
    await peer.setLocalDescription(await peer.createOffer())
    post = asyncio.to_thread(call, "POST", url, peer.localDescription.sdp, "application/sdp")
    status, headers, answer = await post
    assert status == 201, f"{status}: {answer}"
    from aiortc import RTCSessionDescription

    await peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    return urljoin(url, headers["Location"])


async def until_closed(report):
    """Reports once a second until standard input closes."""
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read():
        sys.stdin.read()
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=read, daemon=True).start()
    while not closed.is_set():
        say(**report())
        try:
            await asyncio.wait_for(closed.wait(), 1)
        except TimeoutError:
            pass


async def publish(url):
    from aiortc import MediaStreamTrack, RTCPeerConnection

    class Pictures(MediaStreamTrack):
        kind = "video"
        number = 0

        async def recv(self):
            if self.number == 0:
                self.began = time.monotonic()
            self.number += 1
            await asyncio.sleep(max(0, self.began + self.number / 20 - time.monotonic()))
            frame = picture(self.number)
            frame.pts, frame.time_base = self.number * 4500, fractions.Fraction(1, 90_000)
            return frame

    class Tone(MediaStreamTrack):
        kind = "audio"
        samples = 0

        async def recv(self):
            if self.samples == 0:
                self.began = time.monotonic()
            frame = tone(self.samples, 960)
            frame.pts, frame.time_base = self.samples, fractions.Fraction(1, RATE)
            self.samples += 960
            await asyncio.sleep(max(0, self.began + self.samples / RATE - time.monotonic()))
            return frame

    peer = RTCPeerConnection()
    pictures = Pictures()
    peer.addTransceiver(Tone(), direction="sendonly")
    peer.addTransceiver(pictures, direction="sendonly")
    session = await negotiate(peer, url)
    say(ready=True)
    await until_closed(lambda: {"state": peer.connectionState, "sent": pictures.number})
    status, _, _ = await asyncio.to_thread(call, "DELETE", session)
    say(deleted=status)
    await peer.close()


async def watch(url):
    from aiortc import RTCPeerConnection
    from aiortc.mediastreams import MediaStreamError

    peer = RTCPeerConnection()
    peer.addTransceiver("audio", direction="recvonly")
    peer.addTransceiver("video", direction="recvonly")
    seen = {"video": 0, "audio": 0, "loud": 0, "width": 0}

    async def read(track):
        try:
            while True:
                frame = await track.recv()
                seen[track.kind] += 1
                if track.kind == "video":
                    seen["width"] = frame.width
                elif max(abs(value) for value in memoryview(frame.planes[0]).cast("h")) > 1000:
                    seen["loud"] += 1
        except MediaStreamError:
            pass

    tasks = []
    peer.on("track", lambda track: tasks.append(asyncio.ensure_future(read(track))))
    session = await negotiate(peer, url)
    say(ready=True)
    await until_closed(lambda: {"state": peer.connectionState, **seen})
    status, _, _ = await asyncio.to_thread(call, "DELETE", session)
    say(deleted=status)
    await peer.close()


def certificate(folder):
    """A certificate on P-256 and its key, as PEM files. Built with GnuTLS, FFmpeg
    makes one on P-224 by itself, which no browser and few libraries take."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ffmpeg")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    signed = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = {}
    for option, content in (("cert_file", signed.public_bytes(pem)), ("key_file", private)):
        files[option] = os.path.join(folder, option)
        with open(files[option], "wb") as file:
            file.write(content)
    return files


async def ffmpeg(url):
    """FFmpeg's own WHIP muxer, as `ffmpeg -f whip` uses it. It must be the active
    side of DTLS: by itself it offers to be the passive one."""
    import av

    sent = 0
    stop = threading.Event()

    def run():
        with tempfile.TemporaryDirectory() as folder:
            options = {"authorization": TOKEN, "whip_flags": "dtls_active", **certificate(folder)}
            output = av.open(url, "w", format="whip", options=options)
            send(output)

    def send(output):
        nonlocal sent
        video = output.add_stream("libx264", rate=20)
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        video.options = {
            "profile": "baseline", "preset": "ultrafast", "tune": "zerolatency", "g": "20", "bf": "0",
        }
        audio = output.add_stream("libopus", rate=RATE, layout="stereo")
        resampler = av.AudioResampler(format=audio.format, layout="stereo", rate=RATE, frame_size=960)
        began, samples = time.monotonic(), 0
        while not stop.is_set():
            frame = picture(sent)
            frame.pts, frame.time_base = sent, fractions.Fraction(1, 20)
            output.mux(video.encode(frame))
            sent += 1
            while samples * 20 < sent * RATE:
                sound = tone(samples, 960)
                sound.pts, sound.time_base = samples, fractions.Fraction(1, RATE)
                samples += 960
                for part in resampler.resample(sound):
                    output.mux(audio.encode(part))
            time.sleep(max(0, began + sent / 20 - time.monotonic()))
        output.close()

    work = asyncio.create_task(asyncio.to_thread(run))
    say(ready=True)
    reports = asyncio.create_task(until_closed(lambda: {"sent": sent}))
    await asyncio.wait({work, reports}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await work
    say(deleted=200)


if __name__ == "__main__":
    asyncio.run({"publish": publish, "watch": watch, "ffmpeg": ffmpeg}[sys.argv[1]](sys.argv[2]))
