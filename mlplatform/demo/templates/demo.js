// The camera of this computer, and a photo from the clipboard. Everything else works without.
"use strict";
(() => {
  const field = document.querySelector('input[type="file"][name="photo"]');
  if (!field || !window.DataTransfer) return;
  const ask = (blob, name) => {
    const files = new DataTransfer();
    files.items.add(new File([blob], name, { type: blob.type }));
    field.files = files.files;
    field.form.submit();
  };
  document.addEventListener("paste", (event) => {
    const image = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
    if (image) ask(image, image.name || "pasted");
  });
  const media = navigator.mediaDevices;
  if (!media || !media.getUserMedia) return;
  const [on, picture, take, problem] = ["on", "picture", "take", "problem"].map((name) => document.getElementById("camera-" + name));
  document.getElementById("camera").hidden = false;
  on.addEventListener("click", async () => {
    try {
      picture.srcObject = await media.getUserMedia({ video: { facingMode: "environment" } });
      await picture.play();
      on.hidden = true;
      picture.hidden = take.hidden = false;
    } catch (error) {
      problem.textContent = "The camera cannot be used: " + error.message;
    }
  });
  take.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = picture.videoWidth;
    canvas.height = picture.videoHeight;
    canvas.getContext("2d").drawImage(picture, 0, 0);
    canvas.toBlob((blob) => {
      picture.srcObject.getTracks().forEach((track) => track.stop());
      ask(blob, "camera.jpg");
    }, "image/jpeg", 0.92);
  });
})();
