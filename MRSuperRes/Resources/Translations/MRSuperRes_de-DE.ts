<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="de_DE" sourcelanguage="en_US">
 <context>
  <name>MRSuperRes</name>
  <message>
   <source>MRSuperRes</source>
   <translation>MRSuperRes</translation>
  </message>
  <message>
   <source>&lt;p&gt;Makes coarse MR volumes finer, in plane or through plane, alone or guided by a sharp scan of the same patient, and translates between contrasts. Pick a volume, a task and a model, and press Apply; then press Compare.&lt;/p&gt;&lt;p&gt;Models state what they were trained on. Outside of it you are warned before running. The consistency map shows where a result disagrees with what was acquired, the uncertainty map where a model could have answered otherwise.&lt;/p&gt;&lt;p&gt;&lt;b&gt;Research use only.&lt;/b&gt; Not for diagnosis or treatment.&lt;/p&gt;</source>
   <translation>&lt;p&gt;Macht grobe MR-Volumen feiner, in der Schichtebene oder quer dazu, allein oder geführt von einer scharfen Aufnahme desselben Patienten, und übersetzt zwischen Kontrasten. Volumen, Aufgabe und Modell wählen und Anwenden drücken; danach Vergleichen.&lt;/p&gt;&lt;p&gt;Modelle geben an, womit sie trainiert wurden. Außerhalb davon wird vor dem Rechnen gewarnt. Die Konsistenzkarte zeigt, wo ein Ergebnis der Aufnahme widerspricht, die Unsicherheitskarte, wo ein Modell anders hätte antworten können.&lt;/p&gt;&lt;p&gt;&lt;b&gt;Nur für die Forschung.&lt;/b&gt; Nicht für Diagnose oder Behandlung.&lt;/p&gt;</translation>
  </message>
  <message>
   <source>&lt;p&gt;The models implement published work: RDST (residual dense Swin transformer), TransMRSR (generative prior through plane), MTSR-MRI (super-resolution and translation), FASR-Net (reference-guided) and DisViT (disentangled representation losses). Each model's card cites its paper.&lt;/p&gt;</source>
   <translation>&lt;p&gt;Die Modelle setzen veröffentlichte Arbeiten um: RDST (Residual Dense Swin Transformer), TransMRSR (generatives Vorwissen quer zur Schicht), MTSR-MRI (Superauflösung und Übersetzung), FASR-Net (referenzgeführt) und DisViT (entflochtene Repräsentationen). Die Karte jedes Modells nennt seine Veröffentlichung.&lt;/p&gt;</translation>
  </message>
  <message>
   <source>Cancel</source>
   <translation>Abbrechen</translation>
  </message>
  <message>
   <source>MRSuperRes is at work: choose another volume when it has ended.</source>
   <translation>MRSuperRes rechnet gerade: Wählen Sie ein anderes Volumen, sobald der Lauf beendet ist.</translation>
  </message>
  <message>
   <source>Against ground truth</source>
   <translation>Gegen die Wahrheit</translation>
  </message>
  <message>
   <source>Head</source>
   <translation>Kopf</translation>
  </message>
  <message>
   <source>Whole volume</source>
   <translation>Ganzes Volumen</translation>
  </message>
  <message>
   <source>A model adds detail that was not measured, and may be wrong.</source>
   <translation>Ein Modell fügt Einzelheiten hinzu, die nicht gemessen wurden und falsch sein können.</translation>
  </message>
  <message>
   <source>Research use only. Not for diagnosis or treatment.</source>
   <translation>Nur für die Forschung, nicht für Diagnose oder Behandlung.</translation>
  </message>
  <message>
   <source>&amp;Scan:</source>
   <translation>&amp;Aufnahme:</translation>
  </message>
  <message>
   <source>The scan to work on. It is never changed.</source>
   <translation>Die Aufnahme, mit der gearbeitet wird. Sie wird nie verändert.</translation>
  </message>
  <message>
   <source>Scan</source>
   <translation>Aufnahme</translation>
  </message>
  <message>
   <source>Select the scan</source>
   <translation>Aufnahme wählen</translation>
  </message>
  <message>
   <source>Why this volume cannot be worked on.</source>
   <translation>Warum mit diesem Volumen nicht gearbeitet werden kann.</translation>
  </message>
  <message>
   <source>Con&amp;trast:</source>
   <translation>&amp;Kontrast:</translation>
  </message>
  <message>
   <source>Guessed from the volume's name and DICOM fields. Correct it if it is wrong: models are chosen by it.</source>
   <translation>Aus dem Namen des Volumens und DICOM-Feldern geraten. Bitte berichtigen, wenn er falsch ist: Modelle werden danach gewählt.</translation>
  </message>
  <message>
   <source>Contrast of the scan</source>
   <translation>Kontrast der Aufnahme</translation>
  </message>
  <message>
   <source>Tas&amp;k:</source>
   <translation>A&amp;ufgabe:</translation>
  </message>
  <message>
   <source>In plane: finer pixels within each slice. Through plane: thinner slices. Reference-guided: a sharp scan of the same patient helps. Translate: another contrast.</source>
   <translation>In der Ebene: feinere Pixel in jeder Schicht. Quer dazu: dünnere Schichten. Referenzgeführt: eine scharfe Aufnahme desselben Patienten hilft. Übersetzen: ein anderer Kontrast.</translation>
  </message>
  <message>
   <source>Task</source>
   <translation>Aufgabe</translation>
  </message>
  <message>
   <source>&amp;Model:</source>
   <translation>&amp;Modell:</translation>
  </message>
  <message>
   <source>Models whose card suits the task and the scan; interpolation stands last.</source>
   <translation>Modelle, deren Karte zu Aufgabe und Aufnahme passt; Interpolation steht am Ende.</translation>
  </message>
  <message>
   <source>Model</source>
   <translation>Modell</translation>
  </message>
  <message>
   <source>What the model is for; the PSNR it gained over B-spline interpolation on held-out scans; how long the last run on this machine lets expect.</source>
   <translation>Wofür das Modell ist; wie viel PSNR es auf zurückgehaltenen Aufnahmen gegenüber B-Spline-Interpolation gewann; wie lange es nach dem letzten Lauf auf diesem Rechner dauern wird.</translation>
  </message>
  <message>
   <source>E&amp;nlarge:</source>
   <translation>Verfei&amp;nern:</translation>
  </message>
  <message>
   <source>By a factor, or to a voxel size, along the axes the task refines.</source>
   <translation>Um einen Faktor oder auf eine Voxelgröße, entlang der Achsen, die die Aufgabe verfeinert.</translation>
  </message>
  <message>
   <source>How the size is given</source>
   <translation>Wie die Größe angegeben wird</translation>
  </message>
  <message>
   <source>How many times finer. It follows the model until you change it.</source>
   <translation>Wievielmal feiner. Folgt dem Modell, bis er geändert wird.</translation>
  </message>
  <message>
   <source>Factor</source>
   <translation>Faktor</translation>
  </message>
  <message>
   <source>× </source>
   <translation>× </translation>
  </message>
  <message>
   <source>Voxel size of the result along the refined axes.</source>
   <translation>Voxelgröße des Ergebnisses entlang der verfeinerten Achsen.</translation>
  </message>
  <message>
   <source>Voxel size in millimetres</source>
   <translation>Voxelgröße in Millimetern</translation>
  </message>
  <message>
   <source> mm</source>
   <translation> mm</translation>
  </message>
  <message>
   <source>&amp;Reference:</source>
   <translation>&amp;Referenz:</translation>
  </message>
  <message>
   <source>A sharp scan of the same patient in another contrast.</source>
   <translation>Eine scharfe Aufnahme desselben Patienten in einem anderen Kontrast.</translation>
  </message>
  <message>
   <source>Reference scan</source>
   <translation>Referenzaufnahme</translation>
  </message>
  <message>
   <source>Select the sharp scan</source>
   <translation>Scharfe Aufnahme wählen</translation>
  </message>
  <message>
   <source>How much of the scan the reference covers.</source>
   <translation>Wie viel der Aufnahme die Referenz abdeckt.</translation>
  </message>
  <message>
   <source>Overlap</source>
   <translation>Überlappung</translation>
  </message>
  <message>
   <source>By the positions in the headers, before the two are aligned.</source>
   <translation>Nach den Positionen in den Kopfdaten, bevor beide ausgerichtet werden.</translation>
  </message>
  <message>
   <source>Moves the reference onto the scan by mutual information before it is used.</source>
   <translation>Bewegt die Referenz mittels Transinformation auf die Aufnahme, bevor sie benutzt wird.</translation>
  </message>
  <message>
   <source>Align the reference first (rigid)</source>
   <translation>Referenz zuerst ausrichten (starr)</translation>
  </message>
  <message>
   <source>Ta&amp;rget:</source>
   <translation>&amp;Zielkontrast:</translation>
  </message>
  <message>
   <source>The contrast to make.</source>
   <translation>Der Kontrast, der erzeugt wird.</translation>
  </message>
  <message>
   <source>Contrast to make</source>
   <translation>Zielkontrast</translation>
  </message>
  <message>
   <source>F&amp;irst enlarge:</source>
   <translation>V&amp;orher feiner:</translation>
  </message>
  <message>
   <source>A model that enlarges the scan before it is translated.</source>
   <translation>Ein Modell, das die Aufnahme verfeinert, bevor sie übersetzt wird.</translation>
  </message>
  <message>
   <source>Model that enlarges the scan first</source>
   <translation>Modell, das die Aufnahme vorher verfeinert</translation>
  </message>
  <message>
   <source>Samp&amp;les:</source>
   <translation>&amp;Proben:</translation>
  </message>
  <message>
   <source>Plausible answers to draw, in pairs that mirror each other: an even number is best. Their mean is the result; how much they differ goes into the uncertainty map.</source>
   <translation>Plausible Antworten, die gezogen werden, in gespiegelten Paaren: am besten eine gerade Zahl. Ihr Mittel ist das Ergebnis; wie sehr sie sich unterscheiden, geht in die Unsicherheitskarte ein.</translation>
  </message>
  <message>
   <source>Number of samples</source>
   <translation>Zahl der Proben</translation>
  </message>
  <message>
   <source>See&amp;d:</source>
   <translation>Sta&amp;rtwert:</translation>
  </message>
  <message>
   <source>The same seed gives the same samples.</source>
   <translation>Derselbe Startwert ergibt dieselben Proben.</translation>
  </message>
  <message>
   <source>Seed</source>
   <translation>Startwert</translation>
  </message>
  <message>
   <source>Will make:</source>
   <translation>Ergibt:</translation>
  </message>
  <message>
   <source>The grid of the result, and the memory it needs.</source>
   <translation>Das Gitter des Ergebnisses und der Speicher, den es braucht.</translation>
  </message>
  <message>
   <source>What the model was not made for. It may fail here without a word.</source>
   <translation>Wofür das Modell nicht gemacht ist. Es kann hier ohne ein Wort versagen.</translation>
  </message>
  <message>
   <source>Apply</source>
   <translation>Anwenden</translation>
  </message>
  <message>
   <source>Apply or cancel</source>
   <translation>Anwenden oder abbrechen</translation>
  </message>
  <message>
   <source>How far the work is.</source>
   <translation>Wie weit die Arbeit ist.</translation>
  </message>
  <message>
   <source>Progress</source>
   <translation>Fortschritt</translation>
  </message>
  <message>
   <source>What is being done, or how it ended.</source>
   <translation>Was gerade geschieht oder wie es endete.</translation>
  </message>
  <message>
   <source>Places that the scan shows unlike healthy brain. They are outlined in the slice views, in a segmentation beside the result. Where none is found there may still be one.</source>
   <translation>Stellen, an denen die Aufnahme anders als gesundes Gehirn aussieht. Sie sind in den Schichtansichten umrandet, in einer Segmentierung neben dem Ergebnis. Auch wo keine gefunden wird, kann eine sein.</translation>
  </message>
  <message>
   <source>Shows the place in the middle of all slice views, the largest first, the next at each press.</source>
   <translation>Zeigt die Stelle in der Mitte aller Schichtansichten, die größte zuerst, mit jedem Druck die nächste.</translation>
  </message>
  <message>
   <source>The middle slice of the result, while the others are computed.</source>
   <translation>Die mittlere Schicht des Ergebnisses, während die anderen berechnet werden.</translation>
  </message>
  <message>
   <source>Preview of the middle slice</source>
   <translation>Vorschau der mittleren Schicht</translation>
  </message>
  <message>
   <source>How close the result is to the ground truth: inside the head, and everywhere.</source>
   <translation>Wie nah das Ergebnis der Wahrheit ist: im Kopf und überall.</translation>
  </message>
  <message>
   <source>Scores</source>
   <translation>Bewertung</translation>
  </message>
  <message>
   <source>Input, result and map side by side.</source>
   <translation>Aufnahme, Ergebnis und Karte nebeneinander.</translation>
  </message>
  <message>
   <source>Compare</source>
   <translation>Vergleichen</translation>
  </message>
  <message>
   <source>Input, result and map in linked views with the same window, zoom and cross-hair.</source>
   <translation>Aufnahme, Ergebnis und Karte in verbundenen Ansichten mit gleicher Fensterung, Vergrößerung und Fadenkreuz.</translation>
  </message>
  <message>
   <source>Side by side</source>
   <translation>Nebeneinander</translation>
  </message>
  <message>
   <source>Return to the layout and cross-hair you had.</source>
   <translation>Zurück zu vorheriger Anordnung und Fadenkreuz.</translation>
  </message>
  <message>
   <source>Back to my layout</source>
   <translation>Zurück</translation>
  </message>
  <message>
   <source>In ↔ out:</source>
   <translation>Ein ↔ aus:</translation>
  </message>
  <message>
   <source>From the input to the result in the middle view.</source>
   <translation>Von der Aufnahme zum Ergebnis in der mittleren Ansicht.</translation>
  </message>
  <message>
   <source>Blends from the input (0) to the result (1) in the second view.</source>
   <translation>Blendet in der zweiten Ansicht von der Aufnahme (0) zum Ergebnis (1).</translation>
  </message>
  <message>
   <source>Blend from input to result</source>
   <translation>Blende von Aufnahme zu Ergebnis</translation>
  </message>
  <message>
   <source>Alternates between the input and the result (Ctrl+B).</source>
   <translation>Wechselt zwischen Aufnahme und Ergebnis (Strg+B).</translation>
  </message>
  <message>
   <source>Flicker</source>
   <translation>Wechseln</translation>
  </message>
  <message>
   <source>Ctrl+B</source>
   <translation>Ctrl+B</translation>
  </message>
  <message>
   <source>Sample:</source>
   <translation>Probe:</translation>
  </message>
  <message>
   <source>0 is the mean; 1 and up are the plausible answers it was made from.</source>
   <translation>0 ist das Mittel; ab 1 die plausiblen Antworten, aus denen es gebildet wurde.</translation>
  </message>
  <message>
   <source>Sample</source>
   <translation>Probe</translation>
  </message>
  <message>
   <source>Map:</source>
   <translation>Karte:</translation>
  </message>
  <message>
   <source>The map in the third view.</source>
   <translation>Die Karte in der dritten Ansicht.</translation>
  </message>
  <message>
   <source>Map</source>
   <translation>Karte</translation>
  </message>
  <message>
   <source>What the colours of the map mean.</source>
   <translation>Was die Farben der Karte bedeuten.</translation>
  </message>
  <message>
   <source>Where results go, and what they are compared with. Nothing is overwritten unless you choose it.</source>
   <translation>Wohin Ergebnisse kommen und womit sie verglichen werden. Nichts wird überschrieben, was nicht dafür gewählt wurde.</translation>
  </message>
  <message>
   <source>Outputs, ground truth and maps</source>
   <translation>Ausgaben, Wahrheit und Karten</translation>
  </message>
  <message>
   <source>Res&amp;ult:</source>
   <translation>Ergebni&amp;s:</translation>
  </message>
  <message>
   <source>Where the result goes. A new volume is made beside the input unless you choose one.</source>
   <translation>Wohin das Ergebnis kommt. Neben der Aufnahme entsteht ein neues Volumen, wenn keines gewählt ist.</translation>
  </message>
  <message>
   <source>Result</source>
   <translation>Ergebnis</translation>
  </message>
  <message>
   <source>Create new volume</source>
   <translation>Neues Volumen anlegen</translation>
  </message>
  <message>
   <source>SR</source>
   <translation>SR</translation>
  </message>
  <message>
   <source>&amp;Ground truth:</source>
   <translation>&amp;Wahrheit:</translation>
  </message>
  <message>
   <source>Optional: the fine scan to score the result against.</source>
   <translation>Freigestellt: die feine Aufnahme, gegen die das Ergebnis bewertet wird.</translation>
  </message>
  <message>
   <source>Ground truth</source>
   <translation>Wahrheit</translation>
  </message>
  <message>
   <source>None (no scores)</source>
   <translation>Keine (keine Bewertung)</translation>
  </message>
  <message>
   <source>Absolute difference from the ground truth.</source>
   <translation>Absoluter Unterschied zur Wahrheit.</translation>
  </message>
  <message>
   <source>Error map:</source>
   <translation>Fehlerkarte:</translation>
  </message>
  <message>
   <source>Error map</source>
   <translation>Fehlerkarte</translation>
  </message>
  <message>
   <source>SR error</source>
   <translation>SR Fehler</translation>
  </message>
  <message>
   <source>Where the result, put back through the acquisition, disagrees with what was acquired.</source>
   <translation>Wo das Ergebnis, noch einmal durch die Aufnahme geschickt, dem Aufgenommenen widerspricht.</translation>
  </message>
  <message>
   <source>Consistency map:</source>
   <translation>Konsistenzkarte:</translation>
  </message>
  <message>
   <source>Consistency map</source>
   <translation>Konsistenzkarte</translation>
  </message>
  <message>
   <source>SR consistency</source>
   <translation>SR Konsistenz</translation>
  </message>
  <message>
   <source>Spread of the samples of a model that draws several answers.</source>
   <translation>Streuung der Proben eines Modells, das mehrere Antworten zieht.</translation>
  </message>
  <message>
   <source>Uncertainty map:</source>
   <translation>Unsicherheit:</translation>
  </message>
  <message>
   <source>Uncertainty map</source>
   <translation>Unsicherheitskarte</translation>
  </message>
  <message>
   <source>SR uncertainty</source>
   <translation>SR Unsicherheit</translation>
  </message>
  <message>
   <source>A volume for each sample, which the sample slider under Compare needs.</source>
   <translation>Ein Volumen je Probe; der Regler unter Vergleichen braucht sie.</translation>
  </message>
  <message>
   <source>Keep the samples</source>
   <translation>Proben behalten</translation>
  </message>
  <message>
   <source>The card of the model: what it was trained on, how it did, and its licence.</source>
   <translation>Die Karte des Modells: womit es trainiert wurde, wie gut es ist, und seine Lizenz.</translation>
  </message>
  <message>
   <source>About this model</source>
   <translation>Über dieses Modell</translation>
  </message>
  <message>
   <source>What the model is, what it was made for and how it did.</source>
   <translation>Was das Modell ist, wofür es gemacht wurde und wie gut es ist.</translation>
  </message>
  <message>
   <source>Models for this task that were not made for this scan, and why.</source>
   <translation>Modelle für diese Aufgabe, die nicht für diese Aufnahme gemacht sind, und warum.</translation>
  </message>
  <message>
   <source>Models not made for this scan</source>
   <translation>Modelle, die nicht für diese Aufnahme sind</translation>
  </message>
  <message>
   <source>Put them into the list too. You are warned before one of them is run.</source>
   <translation>Auch sie in die Liste nehmen. Bevor eines davon läuft, wird gewarnt.</translation>
  </message>
  <message>
   <source>Offer them too</source>
   <translation>Auch anbieten</translation>
  </message>
  <message>
   <source>The same model and settings for all volumes of a folder, or all frames of a sequence.</source>
   <translation>Dasselbe Modell und dieselben Einstellungen für alle Volumen eines Ordners oder alle Bilder einer Sequenz.</translation>
  </message>
  <message>
   <source>Many volumes</source>
   <translation>Viele Volumen</translation>
  </message>
  <message>
   <source>All of:</source>
   <translation>Alle von:</translation>
  </message>
  <message>
   <source>All scalar volumes of a folder, a patient or a study of the scene, or all frames of a volume sequence.</source>
   <translation>Alle skalaren Volumen eines Ordners, eines Patienten oder einer Studie der Szene, oder alle Bilder einer Volumensequenz.</translation>
  </message>
  <message>
   <source>Folder, study or sequence</source>
   <translation>Ordner, Studie oder Sequenz</translation>
  </message>
  <message>
   <source>Save to:</source>
   <translation>Speichern in:</translation>
  </message>
  <message>
   <source>Optional folder for the results. Volumes already done there are not done again.</source>
   <translation>Freigestellt: Ordner für die Ergebnisse. Was dort schon fertig ist, wird nicht noch einmal gerechnet.</translation>
  </message>
  <message>
   <source>Folder to save to</source>
   <translation>Ordner zum Speichern</translation>
  </message>
  <message>
   <source>Uses the model and settings above for each volume and goes on after a bad one.</source>
   <translation>Benutzt Modell und Einstellungen von oben für jedes Volumen und fährt nach einem schlechten fort.</translation>
  </message>
  <message>
   <source>Apply to all</source>
   <translation>Auf alle anwenden</translation>
  </message>
  <message>
   <source>Where and how to compute.</source>
   <translation>Wo und wie gerechnet wird.</translation>
  </message>
  <message>
   <source>Advanced</source>
   <translation>Erweitert</translation>
  </message>
  <message>
   <source>Devi&amp;ce:</source>
   <translation>&amp;Gerät:</translation>
  </message>
  <message>
   <source>Automatic takes a GPU that has the memory, otherwise the processor.</source>
   <translation>Automatisch nimmt eine GPU, deren Speicher reicht, sonst den Prozessor.</translation>
  </message>
  <message>
   <source>Device</source>
   <translation>Gerät</translation>
  </message>
  <message>
   <source>&amp;Precision:</source>
   <translation>Genau&amp;igkeit:</translation>
  </message>
  <message>
   <source>Automatic takes half precision where the device is good at it.</source>
   <translation>Automatisch nimmt halbe Genauigkeit, wo das Gerät sie gut beherrscht.</translation>
  </message>
  <message>
   <source>Precision</source>
   <translation>Genauigkeit</translation>
  </message>
  <message>
   <source>Makes the result reproduce the acquired voxels when it is put back through the acquisition.</source>
   <translation>Sorgt dafür, dass das Ergebnis, noch einmal durch die Aufnahme geschickt, die aufgenommenen Voxel ergibt.</translation>
  </message>
  <message>
   <source>Keep what was acquired (projection)</source>
   <translation>Aufgenommenes erhalten (Projektion)</translation>
  </message>
  <message>
   <source>Pr&amp;ofile:</source>
   <translation>S&amp;chichtprofil:</translation>
  </message>
  <message>
   <source>How a slice is assumed to weigh what it covers, for the projection and for the consistency map.</source>
   <translation>Wie eine Schicht gewichtet, was sie abdeckt: angenommen für die Projektion und die Konsistenzkarte.</translation>
  </message>
  <message>
   <source>Slice profile</source>
   <translation>Schichtprofil</translation>
  </message>
  <message>
   <source>What was run, warned about and went wrong.</source>
   <translation>Was lief, wovor gewarnt wurde und was schiefging.</translation>
  </message>
  <message>
   <source>Log</source>
   <translation>Protokoll</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.MRSuperResSubjectHierarchyPlugin</name>
  <message>
   <source>Opens MRSuperRes with this volume, or with all volumes of this folder, study or patient.</source>
   <translation>Öffnet MRSuperRes mit diesem Volumen oder mit allen Volumen dieses Ordners, dieser Studie oder dieses Patienten.</translation>
  </message>
  <message>
   <source>Super-resolve...</source>
   <translation>Superauflösung...</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.cards</name>
  <message>
   <source>Makes {targets} of {contrasts} of the {anatomy}.</source>
   <translation>Macht {targets} aus {contrasts} ({anatomy}).</translation>
  </message>
  <message>
   <source>Trained for voxels of {low:g} to {high:g} mm in plane and slices of {thin:g} to {thick:g} mm.</source>
   <translation>Trainiert für Voxel von {low:g} bis {high:g} mm in der Ebene und Schichten von {thin:g} bis {thick:g} mm.</translation>
  </message>
  <message>
   <source>On {count} held-out scans {mean:+.1f} dB PSNR over B-spline ({least:+.1f} to {most:+.1f}).</source>
   <translation>Auf {count} zurückgehaltenen Aufnahmen {mean:+.1f} dB PSNR gegenüber B-Spline ({least:+.1f} bis {most:+.1f}).</translation>
  </message>
  <message>
   <source>After {authors}, {year}: {title}.</source>
   <translation>Nach {authors}, {year}: {title}.</translation>
  </message>
  <message>
   <source>Research use only.</source>
   <translation>Nur für die Forschung.</translation>
  </message>
  <message>
   <source>Interpolation, no model</source>
   <translation>Interpolation, kein Modell</translation>
  </message>
  <message>
   <source>{title}. What Slicer does without a model; for comparison.</source>
   <translation>{title}. Was Slicer ohne Modell tut; zum Vergleich.</translation>
  </message>
  <message>
   <source>Licence {licence}.</source>
   <translation>Lizenz {licence}.</translation>
  </message>
  <message>
   <source>{m} min {s} s</source>
   <translation>{m} min {s} s</translation>
  </message>
  <message>
   <source>{s} s</source>
   <translation>{s} s</translation>
  </message>
  <message>
   <source>{title}, version {version}.</source>
   <translation>{title}, Version {version}.</translation>
  </message>
  <message>
   <source>For {contrasts} of the {anatomy}.</source>
   <translation>Für {contrasts} ({anatomy}).</translation>
  </message>
  <message>
   <source>For {contrasts} of the {anatomy}</source>
   <translation>Für {contrasts} ({anatomy})</translation>
  </message>
  <message>
   <source>{m} min</source>
   <translation>{m} min</translation>
  </message>
  <message>
   <source>about {time}</source>
   <translation>etwa {time}</translation>
  </message>
  <message>
   <source>{gain:+.1f} dB</source>
   <translation>{gain:+.1f} dB</translation>
  </message>
  <message>
   <source> or </source>
   <translation> oder </translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.compare</name>
  <message>
   <source>{name}: zero is in the middle, {low:.4g} and {high:.4g} are the ends.</source>
   <translation>{name}: Null ist in der Mitte, {low:.4g} und {high:.4g} sind die Enden.</translation>
  </message>
  <message>
   <source>Input</source>
   <translation>Aufnahme</translation>
  </message>
  <message>
   <source>Result</source>
   <translation>Ergebnis</translation>
  </message>
  <message>
   <source>Map</source>
   <translation>Karte</translation>
  </message>
  <message>
   <source>{name}: black is zero, the brightest colour is {high:.4g} or more.</source>
   <translation>{name}: Schwarz ist Null, die hellste Farbe {high:.4g} oder mehr.</translation>
  </message>
  <message>
   <source>One standard deviation, in the input's units.</source>
   <translation>Eine Standardabweichung, in den Einheiten der Aufnahme.</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.inputs_view</name>
  <message>
   <source>Research use only. Not for diagnosis or treatment.</source>
   <translation>Nur für die Forschung. Nicht für Diagnose oder Behandlung.</translation>
  </message>
  <message>
   <source>A model that enlarges the scan before it is translated.</source>
   <translation>Ein Modell, das die Aufnahme verfeinert, bevor sie übersetzt wird.</translation>
  </message>
  <message>
   <source>No</source>
   <translation>Nein</translation>
  </message>
  <message>
   <source>The grid of the result, and the memory it needs.</source>
   <translation>Das Gitter des Ergebnisses und der Speicher, den es braucht.</translation>
  </message>
  <message>
   <source>Models whose card suits the task and the scan.</source>
   <translation>Modelle, deren Karte zu Aufgabe und Aufnahme passt.</translation>
  </message>
  <message>
   <source>Select the volume to work on.</source>
   <translation>Das Volumen wählen, mit dem gearbeitet wird.</translation>
  </message>
  <message>
   <source>There is no model for this task here: choose another task, or install a model.</source>
   <translation>Für diese Aufgabe gibt es hier kein Modell: andere Aufgabe wählen oder ein Modell installieren.</translation>
  </message>
  <message>
   <source>No model was made for this scan: choose another task, correct the contrast, or offer the others too.</source>
   <translation>Kein Modell ist für diese Aufnahme gemacht: andere Aufgabe wählen, Kontrast berichtigen oder auch die anderen anbieten.</translation>
  </message>
  <message>
   <source>Choose the scan's contrast.</source>
   <translation>Den Kontrast der Aufnahme wählen.</translation>
  </message>
  <message>
   <source>This model makes no contrast other than the scan's own: choose another model.</source>
   <translation>Dieses Modell erzeugt keinen anderen Kontrast als den der Aufnahme: anderes Modell wählen.</translation>
  </message>
  <message>
   <source>The ground truth must be another scan than the input.</source>
   <translation>Die Wahrheit muss eine andere Aufnahme sein als die Eingabe.</translation>
  </message>
  <message>
   <source>The outputs must be other volumes than the inputs.</source>
   <translation>Ausgaben müssen andere Volumen sein als die Eingaben.</translation>
  </message>
  <message>
   <source>Each output needs a volume of its own.</source>
   <translation>Jede Ausgabe braucht ein eigenes Volumen.</translation>
  </message>
  <message>
   <source>Select the volume and the reference first.</source>
   <translation>Zuerst Volumen und Referenz wählen.</translation>
  </message>
  <message>
   <source>Models not made for this scan ({count})</source>
   <translation>Modelle, die nicht für diese Aufnahme sind ({count})</translation>
  </message>
  <message>
   <source>Models not made for this scan:</source>
   <translation>Modelle, die nicht für diese Aufnahme sind:</translation>
  </message>
  <message>
   <source>Select the sharp reference scan of the same patient.</source>
   <translation>Die scharfe Referenzaufnahme desselben Patienten wählen.</translation>
  </message>
  <message>
   <source>The reference must be another scan than the input.</source>
   <translation>Die Referenz muss eine andere Aufnahme sein.</translation>
  </message>
  <message>
   <source>A translation is not a scan: it may lose or invent disease.</source>
   <translation>Eine Übersetzung ist keine Aufnahme: Sie kann Krankhaftes verlieren oder erfinden.</translation>
  </message>
  <message>
   <source>{count} models to super-resolve it first: the tooltip of their list says why.</source>
   <translation>{count} Modelle, um sie vorher zu verfeinern: der Hinweis an ihrer Liste sagt, warum.</translation>
  </message>
  <message>
   <source>{size} voxels of {spacing} mm</source>
   <translation>{size} Voxel von {spacing} mm</translation>
  </message>
  <message>
   <source>Needs about {memory} of memory</source>
   <translation>Braucht etwa {memory} Speicher</translation>
  </message>
  <message>
   <source>Ground truth: {reason}</source>
   <translation>Wahrheit: {reason}</translation>
  </message>
  <message>
   <source> and {memory} on the GPU</source>
   <translation> und {memory} auf der GPU</translation>
  </message>
  <message>
   <source>Reference: {reason}</source>
   <translation>Referenz: {reason}</translation>
  </message>
  <message>
   <source>The reference covers {share:.0%} of the scan.</source>
   <translation>Die Referenz deckt {share:.0%} der Aufnahme ab.</translation>
  </message>
  <message>
   <source>Is it of the same patient and body part?</source>
   <translation>Ist sie vom selben Patienten und Körperteil?</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.many_view</name>
  <message>
   <source>The scene has no folder, study or sequence with several volumes.</source>
   <translation>Die Szene hat keinen Ordner, keine Studie und keine Sequenz mit mehreren Volumen.</translation>
  </message>
  <message>
   <source>Each volume would need a reference of its own: choose another task, or a script.</source>
   <translation>Jedes Volumen bräuchte eine eigene Referenz: andere Aufgabe wählen oder ein Skript.</translation>
  </message>
  <message>
   <source>Uses the model and settings above for each volume and goes on after a bad one. Cancel is the button above.</source>
   <translation>Benutzt Modell und Einstellungen von oben für jedes Volumen und fährt nach einem schlechten fort. Abgebrochen wird mit dem Knopf oben.</translation>
  </message>
  <message>
   <source>, then cancelled</source>
   <translation>, dann abgebrochen</translation>
  </message>
  <message>
   <source>{good} of {total} volumes done</source>
   <translation>{good} von {total} Volumen fertig</translation>
  </message>
  <message>
   <source>{done} of {total} volumes done; {what}</source>
   <translation>{done} von {total} Volumen fertig; {what}</translation>
  </message>
  <message>
   <source>, {count} could not be: {reason}</source>
   <translation>, {count} gingen nicht: {reason}</translation>
  </message>
  <message>
   <source>was there already</source>
   <translation>war schon da</translation>
  </message>
  <message>
   <source>done</source>
   <translation>fertig</translation>
  </message>
  <message>
   <source>... and {count} more</source>
   <translation>... und {count} weitere</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.parameters</name>
  <message>
   <source>Unknown</source>
   <translation>Unbekannt</translation>
  </message>
  <message>
   <source>By a factor</source>
   <translation>Um einen Faktor</translation>
  </message>
  <message>
   <source>To a voxel size</source>
   <translation>Auf eine Voxelgröße</translation>
  </message>
  <message>
   <source>Super-resolve in plane</source>
   <translation>Superauflösung in der Schicht</translation>
  </message>
  <message>
   <source>Super-resolve through plane</source>
   <translation>Superauflösung quer zur Schicht</translation>
  </message>
  <message>
   <source>Super-resolve, guided by a reference</source>
   <translation>Superauflösung mit Referenz</translation>
  </message>
  <message>
   <source>Translate to another contrast</source>
   <translation>In anderen Kontrast übersetzen</translation>
  </message>
  <message>
   <source>Automatic</source>
   <translation>Automatisch</translation>
  </message>
  <message>
   <source>Processor (CPU)</source>
   <translation>Prozessor (CPU)</translation>
  </message>
  <message>
   <source>NVIDIA GPU (CUDA)</source>
   <translation>NVIDIA-GPU (CUDA)</translation>
  </message>
  <message>
   <source>Apple GPU (MPS)</source>
   <translation>Apple-GPU (MPS)</translation>
  </message>
  <message>
   <source>Full (32 bit)</source>
   <translation>Voll (32 Bit)</translation>
  </message>
  <message>
   <source>Half (bfloat16)</source>
   <translation>Halb (bfloat16)</translation>
  </message>
  <message>
   <source>Half (float16)</source>
   <translation>Halb (float16)</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.places</name>
  <message>
   <source>{number}: {diameter:.0f} mm across, {volume} ml</source>
   <translation>{number}: {diameter:.0f} mm Durchmesser, {volume} ml</translation>
  </message>
  <message>
   <source>A place unlike healthy brain, {volume} ml: the translation may have lost it. Look at the scan.</source>
   <translation>Eine Stelle anders als gesundes Gehirn, {volume} ml: Die Übersetzung kann sie verloren haben. Sehen Sie in der Aufnahme nach.</translation>
  </message>
  <message>
   <source>{count} places unlike healthy brain, {volume} ml in all: the translation may have lost them. Look at the scan.</source>
   <translation>{count} Stellen anders als gesundes Gehirn, zusammen {volume} ml: Die Übersetzung kann sie verloren haben. Sehen Sie in der Aufnahme nach.</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.requirements</name>
  <message>
   <source>PyTorch was not installed; press Apply again, or install it in the module PyTorch Utils</source>
   <translation>PyTorch wurde nicht installiert; noch einmal Anwenden drücken oder es im Modul PyTorch Utils installieren</translation>
  </message>
  <message>
   <source>PyTorch is not complete: install it again in the module PyTorch Utils</source>
   <translation>PyTorch ist unvollständig: im Modul PyTorch Utils neu installieren</translation>
  </message>
  <message>
   <source>PyTorch is needed: install the PyTorch extension in the Extensions Manager, restart Slicer, and press Apply again</source>
   <translation>PyTorch wird gebraucht: die Erweiterung PyTorch im Extensions Manager installieren, Slicer neu starten und noch einmal Anwenden drücken</translation>
  </message>
  <message>
   <source>{names} are not installed: install them, or run outside of testing mode</source>
   <translation>{names} sind nicht installiert: installieren, oder außerhalb des Testmodus laufen lassen</translation>
  </message>
  <message>
   <source>{names} must be installed, and this Slicer cannot do it: use Slicer 5.12 or later</source>
   <translation>{names} müssen installiert werden, und dieser Slicer kann es nicht: Slicer 5.12 oder neuer benutzen</translation>
  </message>
  <message>
   <source>{names} were not installed; press Apply again to install them</source>
   <translation>{names} wurden nicht installiert; zum Installieren noch einmal Anwenden drücken</translation>
  </message>
  <message>
   <source>{names} could not be installed (pip ended with {code}): check the network, then try again</source>
   <translation>{names} konnten nicht installiert werden (pip endete mit {code}): Netz prüfen, dann noch einmal versuchen</translation>
  </message>
  <message>
   <source>PyTorch could not be installed ({error}): see the module PyTorch Utils, or install it there</source>
   <translation>PyTorch konnte nicht installiert werden ({error}): im Modul PyTorch Utils nachsehen oder es dort installieren</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.results_view</name>
  <message>
   <source>Error</source>
   <translation>Fehler</translation>
  </message>
  <message>
   <source>Consistency</source>
   <translation>Konsistenz</translation>
  </message>
  <message>
   <source>Uncertainty</source>
   <translation>Unsicherheit</translation>
  </message>
  <message>
   <source>Go there</source>
   <translation>Dorthin</translation>
  </message>
  <message>
   <source>Input, result and map in linked views with the same window, zoom and cross-hair.</source>
   <translation>Aufnahme, Ergebnis und Karte in verbundenen Ansichten mit gleicher Fensterung, Vergrößerung und Fadenkreuz.</translation>
  </message>
  <message>
   <source>There is no result to compare yet.</source>
   <translation>Noch gibt es kein Ergebnis zu vergleichen.</translation>
  </message>
  <message>
   <source>PSNR (dB, higher is better)</source>
   <translation>PSNR (dB, höher ist besser)</translation>
  </message>
  <message>
   <source>SSIM (1 is best)</source>
   <translation>SSIM (1 ist am besten)</translation>
  </message>
  <message>
   <source>NMSE (lower is better)</source>
   <translation>NMSE (kleiner ist besser)</translation>
  </message>
  <message>
   <source>Go to {number} of {count}</source>
   <translation>Zu {number} von {count}</translation>
  </message>
  <message>
   <source>Sample {number}</source>
   <translation>Probe {number}</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.run</name>
  <message>
   <source>{name} was removed from the scene: stopped.</source>
   <translation>{name} wurde aus der Szene entfernt: angehalten.</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.scene</name>
  <message>
   <source>No volume is selected.</source>
   <translation>Kein Volumen ist gewählt.</translation>
  </message>
  <message>
   <source>{name} has {count} values in each voxel (colour or vectors), not one intensity.</source>
   <translation>{name} hat {count} Werte in jedem Voxel (Farbe oder Vektoren), nicht eine Intensität.</translation>
  </message>
  <message>
   <source>{name} is a segmentation: choose the MR volume it was drawn on.</source>
   <translation>{name} ist eine Segmentierung: das MR-Volumen wählen, auf dem sie gezeichnet wurde.</translation>
  </message>
  <message>
   <source>{name} is no volume.</source>
   <translation>{name} ist kein Volumen.</translation>
  </message>
  <message>
   <source>{name} has no voxels: load or acquire it first.</source>
   <translation>{name} hat keine Voxel: zuerst laden oder aufnehmen.</translation>
  </message>
  <message>
   <source>{name} is {size} voxels, a single slice: choose a whole volume.</source>
   <translation>{name} hat {size} Voxel, eine einzelne Schicht: ein ganzes Volumen wählen.</translation>
  </message>
  <message>
   <source>{name} is under a non-linear transform: harden it first (Transforms module), which resamples the volume.</source>
   <translation>{name} steht unter einer nichtlinearen Transformation: zuerst härten (Modul Transforms), was das Volumen neu abtastet.</translation>
  </message>
 </context>
 <context>
  <name>MRSuperResSupport.work_view</name>
  <message>
   <source>Reading</source>
   <translation>Lesen</translation>
  </message>
  <message>
   <source>Super-resolving</source>
   <translation>Verfeinern</translation>
  </message>
  <message>
   <source>Aligning the reference</source>
   <translation>Referenz ausrichten</translation>
  </message>
  <message>
   <source>Translating</source>
   <translation>Übersetzen</translation>
  </message>
  <message>
   <source>Scoring</source>
   <translation>Bewerten</translation>
  </message>
  <message>
   <source>Writing</source>
   <translation>Schreiben</translation>
  </message>
  <message>
   <source>Stop. Nothing is changed; of many volumes, those that are done stay.</source>
   <translation>Anhalten. Nichts wird verändert; von vielen Volumen bleiben die fertigen.</translation>
  </message>
  <message>
   <source>Apply</source>
   <translation>Anwenden</translation>
  </message>
  <message>
   <source>Run the model (Ctrl+Enter). You can go on working meanwhile.</source>
   <translation>Modell ausführen (Strg+Eingabe). Inzwischen kann weitergearbeitet werden.</translation>
  </message>
  <message>
   <source>Starting…</source>
   <translation>Beginnt…</translation>
  </message>
  <message>
   <source>Cancel</source>
   <translation>Abbrechen</translation>
  </message>
  <message>
   <source>Cancelling…</source>
   <translation>Wird abgebrochen…</translation>
  </message>
  <message>
   <source>Cancelled. Nothing was changed.</source>
   <translation>Abgebrochen. Nichts wurde verändert.</translation>
  </message>
  <message>
   <source>Done in {seconds:.0f} s: {name}</source>
   <translation>Fertig in {seconds:.0f} s: {name}</translation>
  </message>
  <message>
   <source>{stage}: {share:.0%}</source>
   <translation>{stage}: {share:.0%}</translation>
  </message>
  <message>
   <source>, about {left} left</source>
   <translation>, noch etwa {left}</translation>
  </message>
  <message>
   <source>Run it anyway?</source>
   <translation>Trotzdem ausführen?</translation>
  </message>
  <message>
   <source>Outside of what the model was trained on</source>
   <translation>Außerhalb dessen, womit das Modell trainiert wurde</translation>
  </message>
  <message>
   <source>Warning: {message}</source>
   <translation>Warnung: {message}</translation>
  </message>
  <message>
   <source>MRSuperRes</source>
   <translation>MRSuperRes</translation>
  </message>
  <message>
   <source>({count} more in the log)</source>
   <translation>({count} weitere im Protokoll)</translation>
  </message>
  <message>
   <source>Error: {message}</source>
   <translation>Fehler: {message}</translation>
  </message>
  <message>
   <source>The model was not made for this scan:</source>
   <translation>Das Modell ist nicht für diese Aufnahme gemacht:</translation>
  </message>
 </context>
</TS>
